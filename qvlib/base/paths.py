"""Where relative folders of the parameters lie: in the project.

Wherever a notebook was opened from.
"""

from __future__ import annotations

import functools
import os
import tomllib
from pathlib import Path

from qvlib.base.errors import QvlibError

PROJECT = "QVLIB_PROJECT"
"""The variable that names the project's folder outright, as for workers on another machine."""
SOURCE = "get it by git clone https://github.com/qvlib/qvlib"


def project_root() -> Path:
    """The project: a folder with qvlib's pyproject.toml and notebooks/.

    It is the nearest at or above the current folder; else the one that this very qvlib was imported
    from; else, where qvlib was installed without its notebooks, the current folder. A project of
    another name is never taken.
    """
    if os.environ.get(PROJECT):
        return Path(os.environ[PROJECT])
    here = _here()
    candidates = (here, *here.parents, Path(__file__).resolve().parents[2])
    return next(filter(is_project, candidates), here)


def is_project(folder: Path) -> bool:
    """Whether a folder is a checkout of qvlib, or of what was made from it."""
    file = folder / "pyproject.toml"
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        return False
    return (folder / "notebooks").is_dir() and _name(file, changed) == "qvlib"


@functools.lru_cache(8)
def _name(pyproject: Path, changed: int) -> str | None:
    try:
        match tomllib.loads(pyproject.read_text(encoding="utf-8")):
            case {"project": {"name": str(name)}}:
                return name
    except (OSError, ValueError):  # not to be read, or no TOML
        pass
    return None


def resolve(path: str | Path) -> Path:
    """An absolute path; a relative one is meant from the project root.

    Raises:
        QvlibError: no file can have that name, or it begins with a user that is unknown here.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError
        return project_root() / Path(path).expanduser()
    except ValueError:  # UnicodeEncodeError, of half a surrogate pair, is one
        raise QvlibError(
            f"path {str(path)!r} holds a character that no file's name can have; correct it"
        ) from None
    except RuntimeError:
        raise QvlibError(
            f"path {str(path)!r}: {Path(path).parts[0]} is no user here; write the folder out"
        ) from None


def find(path: str | Path) -> Path:
    """A file that a command names: as it is from the current folder, else from the project."""
    inside = resolve(path)
    here = _here() / Path(path).expanduser()
    return here if here.exists() else inside


def display_path(path: str | Path) -> str:
    """A path as messages show it.

    Relative to the current folder or the project root where it is below one.
    """
    path = Path(path)
    for base in (_here(), project_root()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise QvlibError("the current folder is gone; change to one that is there") from None
