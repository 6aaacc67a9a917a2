"""Draws that several arms share are made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qvlib.core.types import Agent, Proposal, Request

MOST = 20_000  # requests that are remembered, some 100 MB


@dataclass(frozen=True)
class Remembered:
    """An agent that answers a request again as it did before.

    A request's key names its draws, so the answer is the same; arms that have come to the same
    state, as all do in the first, need not sample it anew. Costs are told as if they had.
    known: (key, draws, actions so far) -> the answer, shared by those who draw from the same model
    in the same way.
    """

    agent: Agent
    known: dict[Any, list[Proposal]] = field(default_factory=dict)

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        names = [_name(request) for request in requests]
        missing = {n: r for n, r in zip(names, requests, strict=True) if n not in self.known}
        if missing:
            answers = self.agent.propose(list(missing.values()))
            found = dict(zip(missing, answers, strict=True))
        else:
            found = {}
        drawn = [list(found[n] if n in found else self.known[n]) for n in names]
        self.known.update(found)
        while len(self.known) > MOST:
            del self.known[next(iter(self.known))]  # the oldest
        return drawn


def _name(request: Request) -> tuple[Any, ...]:
    actions = tuple(step.action for step in request.state.history)
    return (*request.key, request.n, actions)
