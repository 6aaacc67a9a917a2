"""What a result came from: code, packages, machine, seeds. No host names, no paths of the user."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from qvlib import __version__
from qvlib.base.executors.processes import cores, largest_worker

HERE = Path(__file__).resolve().parent
_told: set[str] = set()  # hashes of other code that was told of
PACKAGES = ("torch", "transformers", "trl", "peft", "numpy", "pandas")


def provenance(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Code, packages, machine and seeds of this process, ready for a manifest."""
    return {
        "git": git_state(),
        "packages": package_versions(),
        "machine": machine(parameters["device"]),
        "seeds": seeds(parameters),
    }


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def seeds(parameters: Mapping[str, Any]) -> dict[str, int]:
    """Every parameter that is a seed."""
    return {k: v for k, v in parameters.items() if k == "seed" or k.endswith("_seed")}


def package_versions() -> dict[str, str | None]:
    """Versions of Python, qvlib and what results depend on; None where not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "qvlib": __version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def git_state() -> dict[str, Any] | None:
    """The commit of the qvlib that runs, and whether its code differs from it.

    None outside a repository.
    """
    if not _is_checkout(HERE):
        return None
    commit = _git(HERE, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(HERE, "status", "--porcelain", "--", ":/", ":(top,exclude)results")
    return {"commit": commit, "dirty": bool(changed)}


def commits_since(commit: str, paths: Sequence[str], code: Path = HERE) -> tuple[int, str] | None:
    """How many commits after ``commit`` change ``paths`` of the checkout of ``code``, and the last.

    The last is the commit at which the paths got what they hold now. None where git does not tell:
    an installed qvlib, or a history without that commit.
    """
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit) or not _is_checkout(code):
        return None
    if _git(code, "merge-base", "--is-ancestor", commit, "HEAD") is None:
        return None
    of = [f":(top){path}" for path in paths]
    count = _git(code, "rev-list", "--count", f"{commit}..HEAD", "--", *of)
    last = _git(code, "rev-list", "-1", "HEAD", "--", *of)
    return (int(count), last) if count and last else None


@functools.cache
def code_hash() -> str:
    """A hash of qvlib's own code, as it was when first asked for."""
    folder = Path(__file__).resolve().parents[1]
    whole = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        whole.update(f"{name} {len(content)}\n".encode() + content)
    return whole.hexdigest()


def tell_other_code(folder: str, manifest: Mapping[str, Any]) -> None:
    """One line on stderr where other code than today's made a stage; once for each such code."""
    code = manifest.get("code", "")
    if code == code_hash() or code in _told or multiprocessing.parent_process() is not None:
        return
    _told.add(code)
    print(
        f"warning: {folder} was made by {_called(manifest.get('git'))}, and this is "
        f"{_called(git_state())}: other code may have made something else of the same parameters; "
        "delete the folder to make it anew",
        file=sys.stderr,
    )


def _called(git: Mapping[str, Any] | None) -> str:
    if not git:
        return "other code, outside git"
    return f"commit {git['commit'][:9]}" + " with changes" * bool(git["dirty"])


def machine(device: str) -> dict[str, Any]:
    """What speed depends on."""
    summary = {
        "cpus": cores(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
    }
    if device.startswith("cuda"):  # else asking must not cost an import
        import torch

        if torch.cuda.is_available():
            summary["gpu"] = torch.cuda.get_device_name(device)
    return summary


def peak_memory(device: str) -> dict[str, float]:
    """GiB of the largest process so far, this one or one it waited for.

    And of the GPU, where it is used.
    """
    unit = 2**30 if sys.platform == "darwin" else 2**20  # ru_maxrss is in bytes there, else in KiB
    used = max(
        largest_worker(),
        *(
            resource.getrusage(who).ru_maxrss
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ),
    )
    peaks = {"process": round(used / unit, 2)}
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda") and torch.cuda.is_available():
        peaks["gpu"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return peaks


def _is_checkout(folder: Path) -> bool:
    """Whether a folder's ``__init__.py`` is git's; that of an installed package is not."""
    return _git(folder, "ls-files", "--error-unmatch", "__init__.py") is not None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
