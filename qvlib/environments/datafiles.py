"""Reading data files, plain or gzipped, with errors that name file, record and remedy."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

import ijson

from qvlib.base.errors import QvlibError, brief
from qvlib.base.files import is_pointer

_CHUNK = 1 << 16  # characters that are read at a time
_ESCAPE = 12  # characters of the longest escape in JSON, of a pair such as \ud83d\ude00
_HALF = re.compile(
    r"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB][\da-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][\da-fA-F]{2})\\u[dD][c-fC-F][\da-fA-F]{2})"
)
_DEEPEST, _WINDOW = 200, 1 << 12  # brackets left open within so many characters
_STRING = re.compile(r'"[^"]*(?:"|\Z)')


def records(path: Path, what: str, remedy: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of a JSON list of ``what``, one at a time: the file is never held whole.

    Raises:
        QvlibError: unreadable, cut off, not JSON, or not a list of objects.
    """
    with opened(path) as text:
        if _first(text) != "[":
            raise QvlibError(f"{path}: not a list of {what}; {remedy}")
        index = 0
        try:
            for record in ijson.items(_Bytes(text, path), "item", use_float=True, buf_size=_CHUNK):
                if not isinstance(record, dict):
                    raise QvlibError(f"{path}: record {index} is not an object; {remedy}")
                yield index, record
                index += 1
        except ijson.JSONError as error:
            raise QvlibError(
                f"{path}: record {index}: not JSON or cut off ({_first_line(error)}); "
                "fetch the file again"
            ) from None


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the line, object) of a JSON Lines file; empty lines are skipped.

    Raises:
        QvlibError: unreadable, cut off, or a line that is not an object.
    """
    with opened(path) as text:
        for number, line in enumerate(text, 1):
            if not line.isspace():
                value = parsed(line, path, f"line {number}")
                if not isinstance(value, dict):
                    raise QvlibError(
                        f"{path}: line {number} is not an object; give a file with one on each line"
                    )
                yield number, value


def either(path: Path, what: str, remedy: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of a JSON list or of JSON Lines, whatever the file is called.

    Raises:
        QvlibError: as ``records`` and ``lines``.
    """
    with opened(path) as text:
        by_line = _first(text) == "{"
    yield from lines(path) if by_line else records(path, what, remedy)


def parsed(text: str, path: Path, where: str) -> Any:
    """The JSON value of a text.

    Raises:
        QvlibError: not JSON, nested too deep to be read, or with half a pair of characters.
    """
    refuse_halves(text, path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        why = f"is not JSON ({error.msg})"
    except ValueError:
        why = "has a number of thousands of digits"
    except RecursionError:
        why = "is nested too deep"
    raise QvlibError(f"{path}: {where} {why}; fetch the file again")


def refuse_halves(text: str, path: Path) -> None:
    """Raise QvlibError where JSON text spells half a surrogate pair: no file can hold it again."""
    half = _HALF.search(text) if "\\ud" in text or "\\uD" in text else None
    if half:
        before = text[max(0, half.start() - 30) : half.end()]
        raise QvlibError(
            f"{path}: half a character, {half[0][-6:]}, in {brief(before)}; "
            "write the whole pair, or remove it"
        )


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class opened:
    """Text of a plain or gzipped file; a failure to read it in the block becomes a QvlibError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> TextIO:
        if is_pointer(self.path):
            raise QvlibError(
                f"{self.path}: a pointer of Git LFS, not the file; fetch it by `git lfs pull` there"
            )
        try:
            opener = gzip.open if self.path.suffix == ".gz" else open
            self.file = opener(self.path, "rt", encoding="utf-8-sig")
        except OSError as error:
            self._cannot_be_read(error)
        return self.file

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.file.close()
        if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
            raise QvlibError(
                f"{self.path}: cut off or not a gzip file ({error}); fetch it again"
            ) from None
        if isinstance(error, UnicodeDecodeError):
            raise QvlibError(f"{self.path}: not UTF-8 text{_remedy(self.path)}") from None
        if isinstance(error, OSError):
            self._cannot_be_read(error)

    def _cannot_be_read(self, error: OSError) -> NoReturn:
        raise QvlibError(
            f"{self.path}: cannot be read ({error.strerror or error}); check data_dir"
        ) from None


class _Bytes:
    """A text as the bytes that ijson wants, so that other encodings are refused as everywhere."""

    def __init__(self, text: TextIO, path: Path) -> None:
        self.text, self.path, self.in_string = text, path, 0

    def read(self, size: int) -> bytes:
        chunk = self.text.read(size)
        while "\\" in chunk[-_ESCAPE:] and (more := self.text.read(_ESCAPE)):  # cut no escape
            chunk += more
        refuse_halves(chunk, self.path)
        self._refuse_depth(chunk.replace("\\\\", "").replace('\\"', ""))
        return chunk.encode()

    def _refuse_depth(self, text: str) -> None:
        """Raise QvlibError where brackets nest deep: the parser's memory grows with the square."""
        for at in range(0, len(text), _WINDOW):
            window = '"' * self.in_string + text[at : at + _WINDOW]
            if _left_open(window) > _DEEPEST and _left_open(_STRING.sub("", window)) > _DEEPEST:
                raise QvlibError(f"{self.path}: nested too deep; fetch the file again")
            self.in_string = window.count('"') % 2


def _left_open(text: str) -> int:
    return text.count("[") + text.count("{") - text.count("]") - text.count("}")


def _first(text: TextIO) -> str:
    """The first character that is no white space, "" if there is none; the text is left anew."""
    while (first := text.read(1)).isspace():
        pass
    text.seek(0)
    return first


def _remedy(path: Path) -> str:
    """What to do with a file that is no text, where its first bytes tell what it is."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"\x1f\x8b" and path.suffix == ".gz":
        return " within, as of a file that was gzipped twice; gunzip it once"
    if start[:2] == b"\x1f\x8b":
        return f" but gzip: call it {path.name}.gz"
    return " but Parquet: write it as JSON Lines" if start == b"PAR1" else "; fetch it again"


def _first_line(error: ijson.JSONError) -> str:
    """What is wrong, without the text around it, which may be cut within a character."""
    told = error.args[0]
    if isinstance(told, bytes):
        told = told.decode(errors="replace")
    return f"{told.partition(chr(10))[0]:.80}"
