"""Files that survive a kill: replaced whole, or grown by whole lines."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path

_BLOCK = 1 << 16  # bytes that are read at once where the last line end is looked for


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A new file, which takes the place of ``path`` when the block ends well.

    Readers see the old content or all of the new, never a part.

    Raises:
        QvlibError: the file cannot be written, for example because the disk is full.
    """
    path = Path(path)
    temporary = hidden(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(open_own(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise QvlibError(
            f"{display_path(path)} cannot be written: {error.strerror}; mend that and run again, "
            "everything finished is kept"
        ) from None
    finally:
        with suppress(OSError):  # as where its folder is a file, which was told above
            temporary.unlink()


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file so that readers see the old content or all of the new, never a part.

    Raises:
        QvlibError: the file cannot be written, for example because the disk is full.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a file; a symbolic link is not followed.

    Raises:
        OSError: as ``os.open`` does; its ``strerror`` tells of a link.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it is a symbolic link, which is not followed") from None
        raise


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in the place of one that was not fetched."""
    begins = b"version https://git-lfs.github.com/spec/"
    try:
        with path.open("rb") as file:
            return file.read(len(begins)) == begins
    except OSError:
        return False


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def hidden(path: Path) -> Path:
    """A name beside ``path`` that nobody can guess, for what takes its place when it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def write_json(path: str | Path, value: Any) -> Path:
    """Write a JSON file atomically, readable by people; NumPy scalars and arrays become plain."""
    return write_atomic(path, as_json(value))


def as_json(value: Any) -> str:
    """What ``write_json`` writes."""
    return json.dumps(value, indent=2, default=_plain) + "\n"


def hash_of(value: Any, size: int) -> str:
    """``2 * size`` hex digits of what JSON can hold, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record as one line of JSON that is on the disk when the call returns.

    Raises:
        QvlibError: the line cannot be written (the file then ends with the last whole line), or a
            number in the record is not finite.
    """
    try:
        line = json.dumps(record, default=_plain, allow_nan=False).encode() + b"\n"
    except ValueError:
        raise QvlibError(
            f"{display_path(path)}: the record of task {record.get('task')!r:.60} holds a number "
            "that is not finite; look for the reward, value or score that became NaN or infinite"
        ) from None
    try:
        descriptor = open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError as error:
        raise _not_appended(path, error) from None
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
            while written < len(line):  # a nearly full disk takes a part, then says why
                written += os.write(descriptor, line[written:])
            os.fsync(descriptor)
        except BaseException as error:
            os.ftruncate(descriptor, before)
            if isinstance(error, OSError):
                raise _not_appended(path, error) from None
            raise
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Line:
    """A record of a JSONL file, the number of its line and where that begins, in bytes."""

    number: int
    offset: int
    record: dict[str, Any]


def read_lines(path: Path) -> Iterator[Line]:
    """The records of a JSONL file, one at a time; a last line torn by a kill is left out.

    Raises:
        QvlibError: a line that was finished is broken.
    """
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                record = _parse(line)
                if record is not None:
                    yield Line(number, offset, record)
                elif line.endswith(b"\n"):
                    raise broken_line(path, number, "is not a JSON object of finite numbers")
                offset += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise QvlibError(
            f"{display_path(path)} cannot be read: {error.strerror}; restore it, or delete it to "
            "do its tasks again"
        ) from None


def broken_line(path: Path, number: int, wrong: str) -> QvlibError:
    """The error of a finished line that is not as it was written."""
    return QvlibError(
        f"{display_path(path)}: line {number} {wrong}, so the file was edited or damaged; delete "
        "that line (its task is done again) or the file"
    )


def mend_tail(path: Path) -> None:
    """Make a JSONL file end with a whole line, so that the next append starts a new one."""
    try:
        with open(open_own(path, os.O_RDWR), "r+b") as file:
            end, tail = _tail(file)
            if not tail:
                return
            if _parse(tail) is None:
                file.truncate(end)
            else:  # complete, only its line end is missing: no prefix of an object is an object
                file.seek(0, os.SEEK_END)
                file.write(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_appended(path, error) from None


def _tail(file: IO[bytes]) -> tuple[int, bytes]:
    """Where the finished lines of a file end, and what follows them."""
    start, tail = file.seek(0, os.SEEK_END), b""
    while start and b"\n" not in tail:
        size = min(start, _BLOCK)
        start = file.seek(start - size)
        tail = file.read(size) + tail
    after = tail.rfind(b"\n") + 1
    return start + after, tail[after:]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of a record")


def _not_appended(path: Path, error: OSError) -> QvlibError:
    return QvlibError(
        f"{display_path(path)} cannot grow: {error.strerror}; everything finished is kept: "
        "mend that and run again to resume"
    )


def _plain(value: Any) -> Any:
    """NumPy and torch scalars and arrays, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
