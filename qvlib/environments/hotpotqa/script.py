"""The least that an agent must beat on questions: a fixed script that opens one article."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.core.types import Proposal, Request, State
from qvlib.environments.hotpotqa.environment import HotPotQA
from qvlib.environments.hotpotqa.reader import NAME, names_shown


@dataclass(frozen=True)
class Script:
    """Searches the first name in the question, then answers with the first other name it is shown.

    Where it is shown none, as after a search that finds nothing, it answers yes.
    """

    environment: HotPotQA

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [[Proposal(_act(request.state))] * request.n for request in requests]


def _act(state: State) -> str:
    if not state.history:
        return f"search[{_first_name(state.task.instruction)}]"
    return f"finish[{next(filter(_is_name, names_shown(state)), 'yes')}]"


def _first_name(question: str) -> str:
    """The first word of a question is capitalised anyway: it counts where there is no other."""
    first, _, rest = question.partition(" ")
    return next(filter(_is_name, NAME.findall(rest)), first)


def _is_name(name: str) -> bool:
    """Is it a name, where ``NAME`` finds years too?"""
    return not name.isdigit()
