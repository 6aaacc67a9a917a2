"""A fixed script for TextWorld: of the admissible commands the first verb of a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.core.types import Proposal, Request, State

VERBS = ("eat meal", "prepare", "take", "open", "cook", "chop", "slice", "dice", "go")


@dataclass(frozen=True)
class Script:
    """It draws nothing, and repeats no command while another is there."""

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [[Proposal(_act(r.state))] * r.n for r in requests]


def _act(state: State) -> str:
    done = {step.action for step in state.history}
    listed = sorted(state.admissible or (), key=lambda command: (command in done, _rank(command)))
    return listed[0] if listed else "look"


def _rank(command: str) -> int:
    return next((i for i, verb in enumerate(VERBS) if command.startswith(verb)), len(VERBS))
