"""Reading data files, plain or gzipped, with errors that name file, record and remedy."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import ijson

from qvlib.base.errors import QvlibError

_CHUNK = 1 << 16  # characters that are read at a time


def records(path: Path, what: str, remedy: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of a JSON list of ``what``, one at a time: the file is never held whole.

    Raises:
        QvlibError: unreadable, cut off, not JSON, or not a list of objects.
    """
    with opened(path) as text:
        while (first := text.read(1)).isspace():
            pass
        if first != "[":
            raise QvlibError(f"{path}: not a list of {what}; {remedy}")
        text.seek(0)
        index = 0
        try:
            for record in ijson.items(_Bytes(text), "item", use_float=True, buf_size=_CHUNK):
                if not isinstance(record, dict):
                    raise QvlibError(f"{path}: record {index} is not an object; {remedy}")
                yield index, record
                index += 1
        except ijson.JSONError as error:
            raise QvlibError(
                f"{path}: record {index}: not JSON or cut off ({_first_line(error)}); "
                "fetch the file again"
            ) from None


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
    """Text of a plain or gzipped file; a failure to read it in the block becomes a QvlibError."""

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


class _Bytes:
    """A text as the bytes that ijson wants, so that other encodings are refused as everywhere."""

    def __init__(self, text: TextIO) -> None:
        self.text = text

    def read(self, size: int) -> bytes:
        return self.text.read(size).encode()


def _first_line(error: ijson.JSONError) -> str:
    """What is wrong, without the text around it, which may be cut within a character."""
    told = error.args[0]
    if isinstance(told, bytes):
        told = told.decode(errors="replace")
    return told.partition("\n")[0]
