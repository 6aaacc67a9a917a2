"""Folders that travel to machines without the driver's disk: packed once, unpacked once a machine.

A folder is known by its content: the bytes of its ``manifest.json`` where it has one, else a digest
of all its files. Only what was unpacked here before is ever replaced.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qvlib.base.errors import QvlibError
from qvlib.base.files import hidden, open_own, remove

MANIFEST = "manifest.json"
CHUNK = 64 << 20  # bytes of a packed folder that are held at once


@dataclass(frozen=True)
class Packed:
    """A packed folder: where it lies, what it holds, and the pieces of its archive.

    ``manifest``: the bytes of its manifest, None where it has none; ``pieces``: as ``keep`` of
    ``pack`` gave them.
    """

    path: str
    digest: str
    manifest: bytes | None
    pieces: tuple[Any, ...]


def files(folder: Path) -> list[Path]:
    """The files of a folder that travel, in order: no locks, and nothing that is half written."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(map(_stays, path.relative_to(folder).parts))
    ]


def _stays(name: str) -> bool:
    return name.endswith((".lock", ".tmp"))


def state(folder: Path) -> tuple[Any, ...]:
    """What changes whenever a file of the folder does, without a look into it."""
    stats = [(str(path), path.stat()) for path in files(folder)]
    return tuple((name, s.st_size, s.st_mtime_ns) for name, s in stats)


def digest(folder: Path) -> str:
    """A digest of the names and contents of a folder's files."""
    whole = hashlib.blake2b(digest_size=16)
    for path in files(folder):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "blake2b").digest()
        name = path.relative_to(folder).as_posix().encode()
        whole.update(len(name).to_bytes(8, "big") + name + content)
    return whole.hexdigest()


def pack(folder: Path, keep: Any) -> Packed:
    """Pack a folder; ``keep(bytes)`` gets the pieces of its archive and gives what stands for them.

    Raises:
        QvlibError: there is no such folder.
    """
    if not folder.is_dir():
        raise QvlibError(f"{folder}: no such folder, which workers are to read; make it first")
    manifest = folder / MANIFEST
    pieces = _Pieces(keep)
    with tarfile.open(fileobj=pieces, mode="w|", dereference=True) as archive:
        for path in files(folder):
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return Packed(
        str(folder.absolute()),
        digest(folder),
        manifest.read_bytes() if manifest.is_file() else None,
        pieces.finished(),
    )


class _Pieces:
    """A file to write to, kept in pieces."""

    def __init__(self, keep: Any) -> None:
        self._keep = keep
        self._kept: list[Any] = []
        self._open = bytearray()

    def write(self, content: bytes) -> int:
        self._open += content
        if len(self._open) >= CHUNK:
            self._close()
        return len(content)

    def _close(self) -> None:
        self._kept.append(self._keep(bytes(self._open)))
        self._open.clear()

    def finished(self) -> tuple[Any, ...]:
        if self._open:
            self._close()
        return tuple(self._kept)


def unpack(packed: Packed, pieces: Iterable[bytes], root: Path = Path("/")) -> bool:
    """Put a folder where it lay, whole, if it is not there already; says whether it was put there.

    Args:
        pieces: the pieces of its archive, got one after the other when they are needed.
        root: what stands for the root of the disk.

    Raises:
        QvlibError: something else lies there which was not unpacked by this function.
    """
    folder = root / Path(packed.path).relative_to("/")
    mark = folder.with_name(f".{folder.name}.placed")
    if _is(folder, packed, mark):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{folder.name}.placed.lock")):
        if _is(folder, packed, mark):  # another worker was first
            return False
        if folder.exists() and not mark.exists():
            raise QvlibError(
                f"{folder} holds something else on {os.uname().nodename} than with the driver; "
                "remove it there"
            )
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):  # of a kill
            remove(left)
        new, old = hidden(folder), hidden(folder)
        new.mkdir()
        _extract(new, pieces)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        mark.write_text(packed.digest)
        shutil.rmtree(old, ignore_errors=True)
    return True


def _is(folder: Path, packed: Packed, mark: Path) -> bool:
    """Whether a folder is there and the one that was packed."""
    if not folder.exists():
        return False
    if packed.manifest is not None:
        manifest = folder / MANIFEST
        return manifest.is_file() and manifest.read_bytes() == packed.manifest
    return (mark.read_text() if mark.exists() else digest(folder)) == packed.digest


def _extract(folder: Path, pieces: Iterable[bytes]) -> None:
    with tarfile.open(fileobj=_Joined(iter(pieces)), mode="r|") as archive:
        for member in archive:
            source, path = archive.extractfile(member), folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as target:
                shutil.copyfileobj(source, target)


class _Joined:
    """A file to read from, whose pieces come one after the other."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._open = memoryview(b"")

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            if not self._open:
                self._open = memoryview(next(self._pieces, b""))
                if not self._open:
                    break
            parts.append(bytes(self._open[:size]))
            self._open = self._open[size:]
            size -= len(parts[-1])
        return b"".join(parts)


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Hold a lock that the others of this machine wait for."""
    with open(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
