"""The one exception that users are meant to see."""

from __future__ import annotations

import errno
import shutil


class QvlibError(Exception):
    """A problem the user can mend: the message names the thing and the remedy, in one line.

    Programming errors keep their own types and tracebacks; whatever is wrong with
    parameters, files, data or servers ends here, and the command line prints only
    the message and exits with 2.
    """


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
