"""The least that an agent must beat in games: a fixed script that knows an order of verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.core.preferences import kind
from qvlib.core.types import Proposal, Request, State
from qvlib.environments.textworld.environment import TextWorld

VERBS = ("prepare", "cook", "slice", "chop", "dice", "take", "unlock", "open", "go")


@dataclass(frozen=True)
class Script:
    """Gives the first command of the first of ``VERBS`` that it did not give in the same state.

    ``eat meal`` comes before all; what is left (looking, closing, dropping, eating what a meal
    needs) after all. Two states are the same where the game has just said the same.
    """

    environment: TextWorld

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [[Proposal(self._act(request.state))] * request.n for request in requests]

    def _act(self, state: State) -> str:
        ordered = sorted(state.admissible or ("look",), key=_rank)
        said = [self.environment.reset(state.task).observation]
        said += [step.observation for step in state.history]
        given = {
            step.action
            for before, step in zip(said, state.history, strict=False)
            if before == state.observation
        }
        return next((command for command in ordered if command not in given), ordered[0])


def _rank(command: str) -> int:
    """Place of a command in the order; those of one verb stay in the game's order."""
    if command == "eat meal":
        return -1
    verb = kind(command)
    return VERBS.index(verb) if verb in VERBS else len(VERBS)
