"""The one exception that users are meant to see."""

from __future__ import annotations

import reprlib
from typing import Any

from qvlib.base.terminal import printable

LONGEST = 300
"""Characters of an error's line; what is longer loses its middle, not its remedy."""

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 60


class QvlibError(Exception):
    """A problem the user can mend: the message names the thing and the remedy, in one line.

    Programming errors keep their own types and tracebacks; whatever is wrong with
    parameters, files, data or servers ends here, and the command line prints only
    the message and exits with 2. What a message quotes cannot steer a terminal.
    """

    def __init__(self, message: object = "") -> None:
        line = printable(" ".join(str(message).split()))
        if len(line) > LONGEST:
            half = (LONGEST - 5) // 2
            line = f"{line[:half]} ... {line[-half:]}"
        super().__init__(line)


def brief(value: Any) -> str:
    """A value as an error shows it: its first and last characters where it is long."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    return _BRIEF.repr(value)
