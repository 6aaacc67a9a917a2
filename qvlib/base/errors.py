"""The one exception that users are meant to see, and others' words in one line."""

from __future__ import annotations

import errno
import reprlib
import shutil
from typing import Any

from qvlib.base.markup import visible

LONGEST = 300
"""Characters of an error's line: in a longer one long words, such as paths, lose their middle."""

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 60


class QvlibError(Exception):
    """A problem the user can mend: the message names the thing and the remedy, in one line.

    Programming errors keep their own types and tracebacks; whatever is wrong with
    parameters, files, data or servers ends here, and the command line prints only
    the message and exits with 2. What a message quotes cannot steer a terminal.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_within(LONGEST, visible(" ".join(str(message).split()))))


class Hindrance(QvlibError):
    """What passes, such as a folder that another process uses: the same run again may succeed.

    It ends what is under way, also where what fails by itself is noted and left out.
    """


def _within(most: int, line: str) -> str:
    while (excess := len(line) - most) > 0:
        word = max(line.split(" "), key=len)
        if len(word) <= 40:
            return _without_middle(line, most)
        line = line.replace(word, _without_middle(word, max(40, len(word) - excess)), 1)
    return line


def _without_middle(text: str, most: int) -> str:
    head, tail = (most - 3) // 2, (most - 2) // 2
    return f"{text[:head]}...{text[-tail:]}"


def brief(value: Any) -> str:
    """A value as an error shows it, in 60 characters: what is long or deep in it is left out."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    return f"{_BRIEF.repr(value):.60}"


def one_line(error: Exception, longest: int = 200) -> str:
    """The first line of an error's words, ``longest`` characters at most; its type without any."""
    words = str(error).strip()
    return words.splitlines()[0][:longest] if words else type(error).__name__


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_MEMORY_TEXTS = ("MemoryError", "out of memory", "allocate memory")
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded")


def of_the_machine(error: BaseException) -> str | None:
    """What to do about an error for want of memory or disk; None of any other."""
    by_text = isinstance(error, (RuntimeError, shutil.Error))  # torch, workers, copied folders
    text = str(error) if by_text or type(error).__name__ == "SafetensorError" else ""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or code == errno.ENOMEM or _any(_NO_MEMORY_TEXTS, text):
        return (
            "the memory is used up; lower batch_size or processes and run again, everything "
            "finished is kept"
        )
    if code in _FULL or _any(_FULL_TEXTS, text):
        return (
            "the disk is full; make room there and in the folder of temporary files and run "
            "again, everything finished is kept"
        )
    return None


def _any(parts: tuple[str, ...], text: str) -> bool:
    return any(part in text for part in parts)
