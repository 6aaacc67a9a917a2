"""What a notebook prints, shown in a terminal as it comes."""

from __future__ import annotations

import re
import sys
from typing import TextIO

from qvlib.base.markup import visible

UP = "\x1b[A"
"""Moves the cursor a line up, as several progress bars below each other do."""


class Forward:
    """A stream that passes text on at once; of what steers a terminal only ``\\r`` stays as it is.

    A log that is no terminal gets only the last state of each line. bars: the stream may draw
    progress bars below each other with ``UP``.
    """

    def __init__(self, target: TextIO, bars: bool = False):
        self._target = target
        self._terminal = target.isatty()
        self._moves = re.compile("(\r|\n|\x1b\\[A)" if bars else "(\r|\n)")
        self._bars = bars
        self._begun = ""  # the beginning of a move that the next text may end
        self._lines, self._row, self._anew = [""], 0, False
        self._up, self._highest = 0, 0  # how far bars go back: in the last move, at most

    def write(self, text: str) -> None:
        """Pass text on."""
        text = self._begun + text
        self._begun = re.search(r"(\x1b\[?)?\Z", text)[0] if self._bars else ""
        text = text.removesuffix(self._begun)
        for i, piece in enumerate(self._moves.split(text)):
            shown = piece if i % 2 else visible(piece)  # the odd ones are moves
            if self._terminal:
                self._target.write(shown)
            self._draw(shown)
        self._settle(max(0, self._row - self._highest))

    def flush(self) -> None:
        """Show what was written."""
        self._target.flush()

    def close(self) -> None:
        """End unfinished lines."""
        while len(self._lines) > 1 and not self._lines[-1]:
            self._lines.pop()
        if any(self._lines):
            if self._terminal:
                self._target.write("\n" * (len(self._lines) - self._row))
            self._settle(len(self._lines))
        self._target.flush()

    def _draw(self, piece: str) -> None:
        """Follow what a piece of text does to the lines that may still change."""
        self._up = self._up + 1 if piece == UP else self._up if not piece else 0
        self._highest = max(self._highest, self._up)
        if piece == "\n":
            self._row += 1
            self._anew = True
            self._lines += [""] * (self._row == len(self._lines))
        elif piece == "\r":
            self._anew = True
        elif piece == UP:
            self._row = max(0, self._row - 1)
        elif piece:
            self._lines[self._row] = piece if self._anew else self._lines[self._row] + piece
            self._anew = False

    def _settle(self, count: int) -> None:
        """Forget the first lines, which change no more; a log gets them now."""
        if not self._terminal:
            self._target.write("".join(line + "\n" for line in self._lines[:count]))
        self._lines, self._row = self._lines[count:] or [""], max(0, self._row - count)


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
