"""Reading data files, plain or gzipped, with errors that name file, record and remedy."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from qvlib.base.errors import QvlibError

_CHUNK = 1 << 22
_LONGEST_RECORD = 1 << 26


def records(path: Path, what: str, remedy: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of a JSON list of ``what``, one at a time, so that a file of many gigabytes is never held whole.

    Raises:
        QvlibError: unreadable, cut off, not JSON, or not a list of objects.
    """
    with opened(path) as text:
        buffer, index = _Buffer(text, path), 0
        if buffer.peek() != "[":
            raise QvlibError(f"{path}: not a list of {what}; {remedy}")
        buffer.at += 1
        while buffer.peek() != "]":
            if index:
                buffer.skip(",", index)
            record = buffer.value(index)
            if not isinstance(record, dict):
                raise QvlibError(f"{path}: record {index} is not an object; {remedy}")
            yield index, record
            index += 1


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file.

    Raises:
        QvlibError: unreadable, cut off, or not JSON.
    """
    with opened(path) as text:
        for number, line in enumerate(text, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise QvlibError(
                    f"{path}: line {number} is not JSON ({error.msg}); fetch the file again"
                ) from None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class opened:
    """Text of a plain or gzipped file; a failure to read it anywhere in the block becomes a QvlibError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> TextIO:
        try:
            opener = gzip.open if self.path.suffix == ".gz" else open
            self.file = opener(self.path, "rt", encoding="utf-8")
        except OSError as error:
            raise QvlibError(
                f"{self.path}: cannot be read ({error.strerror}); check data_dir"
            ) from None
        return self.file

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.file.close()
        if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
            raise QvlibError(
                f"{self.path}: cut off or not a gzip file ({error}); fetch it again"
            ) from None
        if isinstance(error, UnicodeDecodeError):
            raise QvlibError(f"{self.path}: not UTF-8 text; fetch it again") from None


class _Buffer:
    """A window over a JSON text, moved along as values are read."""

    def __init__(self, text: TextIO, path: Path) -> None:
        self.text, self.path, self.window, self.at = text, path, "", 0
        self.decode = json.JSONDecoder().raw_decode

    def more(self) -> bool:
        chunk = self.text.read(_CHUNK)
        self.window, self.at = self.window[self.at :] + chunk, 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the text."""
        while True:
            while self.at < len(self.window):
                if not self.window[self.at].isspace():
                    return self.window[self.at]
                self.at += 1
            if not self.more():
                return ""

    def skip(self, mark: str, index: int) -> None:
        if self.peek() != mark:
            self.fail(index, f"expected {mark!r}" if self.peek() else "the text ends here")
        self.at += 1

    def value(self, index: int) -> Any:
        self.peek()
        while True:
            try:
                value, self.at = self.decode(self.window, self.at)
                return value
            except json.JSONDecodeError as error:
                # Cut by the window's edge, or wrong? Only more text can tell.
                if len(self.window) - self.at > _LONGEST_RECORD or not self.more():
                    self.fail(index, error.msg)

    def fail(self, index: int, why: str) -> None:
        raise QvlibError(
            f"{self.path}: record {index}: not JSON or cut off ({why}); fetch the file again"
        )
