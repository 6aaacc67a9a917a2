"""A world whose every text would do something if it were not shown as text."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toy import Maze, Scripted

from qvlib.core.types import State, Task

IMAGE = "<img src=x onerror=alert(1)>"
TERMINAL = "\x1b]0;owned\x07\x1b[2J"
CHOICES = (
    f"take[{IMAGE}]",
    "read[`x` <script>alert(2)</script> | y\\]",
    f"go[[here](javascript:alert(3)) {TERMINAL}]",
)
INSTRUCTION = (
    f"{IMAGE} `tick` [click](javascript:alert(4)) <script>alert(5)</script> | a\\|b {TERMINAL}\n\n"
    "# <svg onload=alert(6)>"
)


@dataclass(frozen=True)
class Hostile(Maze):
    """The maze in other words: its observations, instructions and actions are all hostile."""

    choices: tuple[str, ...] = CHOICES
    depth: int = 2
    max_steps: int = 3
    name: str = f"`{IMAGE}"

    def tasks(self, split: str) -> list[Task]:
        count = {"train": 60, "dev": 4, "test": 8}[split]
        return [Task(f"{split}-{i}", f"{i} {INSTRUCTION}", f"{split}-{i}") for i in range(count)]

    def reset(self, task: Task) -> State:
        return replace(super().reset(task), observation=f"{IMAGE} [SEP] start {TERMINAL}")

    def demonstrator(self) -> Scripted:
        return Scripted(self.choices)


def make(settings) -> Hostile:
    """The factory that the parameter ``environment`` names."""
    return Hostile()
