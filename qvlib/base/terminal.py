"""What a notebook prints, shown in a terminal as it comes."""

from __future__ import annotations

import sys
from typing import TextIO


class Forward:
    """A stream that passes text on at once.

    A log that is no terminal gets only the last state of each line.
    """

    def __init__(self, target: TextIO):
        self._target = target
        self._terminal = target.isatty()
        self._line = ""

    def write(self, text: str) -> None:
        """Pass text on."""
        self._line += text
        lines, newline, self._line = self._line.rpartition("\n")
        if self._terminal:
            self._target.write(text)
        elif newline:
            self._target.write("".join(_last_state(line) + "\n" for line in lines.split("\n")))

    def flush(self) -> None:
        """Show what was written."""
        self._target.flush()

    def close(self) -> None:
        """End an unfinished line."""
        if self._line:
            self._target.write("\n" if self._terminal else _last_state(self._line) + "\n")
            self._line = ""
        self._target.flush()


def use_text_progress() -> None:
    """Make ``tqdm.auto`` draw text, which reaches the terminal, rather than widgets, which do not.

    Called in kernels that the runner starts, before anything imports ``tqdm.auto``.
    """
    import tqdm.std

    sys.modules["tqdm.autonotebook"] = tqdm.std


def format_duration(seconds: float) -> str:
    """``8.2 s`` or ``12 min 5 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]
