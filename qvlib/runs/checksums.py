"""Checksums of a finished stage's files: what was edited, damaged or exchanged later is told."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.files import hash_of
from qvlib.base.paths import display_path

SCRATCH = "training"  # end of the names of folders with checkpoints, which come and go
_hash = functools.partial(hashlib.blake2b, digest_size=16)
_found_right: dict[Path, tuple[Any, ...]] = {}  # folder -> what its files were like when checked


def checksums(folder: Path) -> dict[str, str]:
    """File name -> checksum of all that is kept in a stage's folder but its manifest."""
    kept = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder) for path in kept)
    return {
        name.as_posix(): _checksum(folder / name)
        for name in sorted(names)
        if name.as_posix() != "manifest.json"
        and not any(part.startswith(".") or part.endswith(SCRATCH) for part in name.parts)
    }


def checksum_of(manifest: Mapping[str, Any]) -> str:
    """The checksum of a manifest, which it holds itself under ``checksum``."""
    told = {key: value for key, value in manifest.items() if key != "checksum"}
    return hash_of(told, 16)


def check(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise QvlibError if a file of a finished stage is not as it was when that was finished.

    Files that were right before are read again only where one has changed. Manifests of older
    versions, without checksums, are taken as they are.
    """
    remedy = f"restore it, or delete the folder {display_path(folder)} to make the stage anew"
    if "checksum" in manifest and manifest["checksum"] != checksum_of(manifest):
        raise QvlibError(
            f"{display_path(folder / 'manifest.json')} was edited or damaged since the stage was "
            f"finished; {remedy}"
        )
    kept: Mapping[str, str] = manifest.get("files", {})
    try:
        state = tuple(_state(folder / name) for name in kept)
        if _found_right.get(folder) == (manifest.get("checksum"), *state):
            return
        for name, right in kept.items():
            if _checksum(folder / name) != right:
                raise QvlibError(
                    f"{display_path(folder / name)} was edited, damaged or exchanged since its "
                    f"stage was finished; {remedy}"
                )
    except FileNotFoundError as error:
        raise QvlibError(
            f"{display_path(error.filename)} is gone since its stage was finished; {remedy}"
        ) from None
    except OSError as error:
        raise QvlibError(
            f"{display_path(error.filename)} cannot be read: {error.strerror}; {remedy}"
        ) from None
    _found_right[folder] = (manifest.get("checksum"), *state)


def _state(path: Path) -> tuple[int, ...]:
    """What changes whenever a file does."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _hash).hexdigest()
