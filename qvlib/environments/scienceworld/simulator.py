"""The one Java simulator of a process, brought to wherever it is asked for.

A simulator takes most of a gigabyte and cannot be copied. What it answered is remembered, so that a
state that was left by an action can be left by it again at no cost; a new action from an earlier
state plays the commands up to it again.
"""

from __future__ import annotations

import functools
import re
import shutil
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from qvlib.base.errors import QvlibError

ANSWERS = 65_536  # remembered, about 1 kB each
ALIKE = re.compile(
    r"(?P<thing>[^\s(),:][^(),:\n]* \(containing )[^()]*\)(?:(?:, |\n)(?P=thing)[^()]*\))+"
)
CHOICE = re.compile(r"^\s*(\d+):\s*(.*?)\s*$", re.MULTILINE)
AMBIGUOUS = "Ambiguous request"
UNKNOWN = "No known action matches that input"
Place = tuple[str, int, tuple[str, ...]]
"""(task, variation, commands that were understood)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an action shows, and the score in [-1, 1] after it; ``over``: solved or failed."""

    text: str
    score: float = 0.0
    over: bool = False
    known: bool = True


class Simulator:
    """ScienceWorld behind (task, variation, commands)."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self._at: Place | None = None
        self._choices: list[str] = []
        self._answers: LRUCache[Place, Answer] = LRUCache(ANSWERS)

    def start(self, task: str, variation: int) -> Answer:
        """The first look around."""
        place = (task, variation, ())
        if place not in self._answers:
            self._load(task, variation)
            self._answers[place] = Answer(tidy(self.env.server.freeActionLook()))
        return self._answers[place]

    def answer(self, task: str, variation: int, commands: tuple[str, ...], action: str) -> Answer:
        """What an action shows after commands; what is not understood leaves all as it was."""
        place = (task, variation, (*commands, action))
        if place not in self._answers:
            self._go(task, variation, commands)
            self._answers[place] = self._step(action)
        return self._answers[place]

    def reached(self, task: str, variation: int, commands: tuple[str, ...]) -> tuple[str, ...]:
        """The parts of the task that are reached after commands, as the simulator names them."""
        self._go(task, variation, commands)
        rows = (line.split("\t") for line in self.env.get_goal_progress().splitlines())
        return tuple(row[3].strip() for row in rows if len(row) == 4 and row[1] == "true")

    def forget(self) -> None:
        """Empty the memory, and load anew whatever comes next."""
        self._at = None
        self._answers.clear()

    def _go(self, task: str, variation: int, commands: tuple[str, ...]) -> None:
        at = self._at
        if at is None or at[:2] != (task, variation) or at[2] != commands[: len(at[2])]:
            self._load(task, variation)
        for command in commands[len(self._at[2]) :]:
            self._step(command)

    def _step(self, action: str) -> Answer:
        asked, text = bool(self._choices), self.env.server.step(self._chosen(action))
        self._choices = (
            [choice for _, choice in CHOICE.findall(text)] if text.startswith(AMBIGUOUS) else []
        )
        known = not text.startswith(UNKNOWN)
        if known:
            task, variation, commands = self._at
            self._at = (task, variation, (*commands, action))
        elif asked:
            self._at = None  # it no longer asks which reading was meant
        score = self.env.server.getScore()
        return Answer(tidy(text), score, score < 0 or bool(self.env.server.getCompleted()), known)

    def _chosen(self, action: str) -> str:
        """An action as the simulator numbers it: one of several readings by its own number."""
        if not action.isdecimal() or int(action) >= len(self._choices):
            return action
        return str(self._choices.index(sorted(self._choices)[int(action)]))

    def _load(self, task: str, variation: int) -> None:
        self._choices, self._at = [], None  # wherever an interruption leaves it
        self.env.load(
            task, variation
        )  # begins anew too; the simulator's own reset takes ten times as long
        self._at = (task, variation, ())


@functools.cache
def simulator() -> Simulator:
    """The simulator of this process.

    Raises:
        QvlibError: Java or the package is not installed.
    """
    try:
        from scienceworld import ScienceWorldEnv
    except ImportError:
        raise QvlibError(
            "environment scienceworld: the package is not installed; "
            "pip install 'qvlib[scienceworld]'"
        ) from None
    if shutil.which("java") is None:
        raise QvlibError(
            "environment scienceworld: no `java` on the PATH; install a Java runtime, such as "
            "`conda install openjdk` or your system's default-jre-headless"
        )
    return Simulator(ScienceWorldEnv())


def tidy(text: str) -> str:
    """A text without tabs and empty lines; what the simulator lists in any order, in one.

    Things that differ in their contents alone, and the readings of an ambiguous action, are put in
    alphabetical order.

    The simulator lists those as its memory happens to hold them, differently when a walk is played
    again.
    """
    if text.startswith(AMBIGUOUS):
        choices = sorted(choice for _, choice in CHOICE.findall(text))
        text = "\n".join(
            [text.splitlines()[0], *(f"{i}: {choice}" for i, choice in enumerate(choices))]
        )
    return ALIKE.sub(
        _in_order, "\n".join(line.strip() for line in text.splitlines() if line.strip())
    )


def _in_order(run: re.Match[str]) -> str:
    parts = re.split(rf"(, |\n)(?={re.escape(run['thing'])})", run[0])
    parts[::2] = sorted(parts[::2])
    return "".join(parts)
