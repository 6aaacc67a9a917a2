"""Files that survive a kill: replaced whole, or grown by whole lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file so that readers see the old content or all of the new, never a part.

    Raises:
        QvlibError: the file cannot be written, for example because the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
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
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write a JSON file atomically, readable by people; NumPy scalars and arrays become plain."""
    return write_atomic(path, json.dumps(value, indent=2, default=_plain) + "\n")


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record as one line of JSON that is on the disk when the call returns.

    Raises:
        QvlibError: the line cannot be written; the file then ends with the last whole line.
    """
    line = json.dumps(record, default=_plain).encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file; a last line torn by a kill is left out.

    Raises:
        QvlibError: a line that was finished is broken.
    """
    whole, tail = _split_tail(path)
    records = []
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        record = _parse(line)
        if record is None:
            raise QvlibError(
                f"{display_path(path)}: line {number} is not a JSON object, so the file was edited "
                "or damaged; delete that line (its task is done again) or the file"
            )
        records.append(record)
    last = _parse(tail)
    return records if last is None else [*records, last]


def mend_tail(path: Path) -> None:
    """Make a JSONL file end with a whole line, so that the next append starts a new one."""
    if not path.exists():
        return
    whole, tail = _split_tail(path)
    if not tail:
        return
    try:
        if _parse(tail) is None:
            os.truncate(path, len(whole))
        else:  # complete, only its line end is missing: no prefix of an object is an object
            with open(path, "ab") as file:
                file.write(b"\n")
    except OSError as error:
        raise _not_appended(path, error) from None


def _split_tail(path: Path) -> tuple[bytes, bytes]:
    """The finished lines of a file, and what follows them."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b"", b""
    except OSError as error:
        raise QvlibError(f"{display_path(path)} cannot be read: {error.strerror}") from None
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _not_appended(path: Path, error: OSError) -> QvlibError:
    return QvlibError(
        f"{display_path(path)} cannot grow: {error.strerror}; everything finished is kept: "
        "make room and run again to resume"
    )


def _plain(value: Any) -> Any:
    """NumPy and torch scalars and arrays, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
