"""A scripted scientist that knows the gold actions and errs: what small agents are cloned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.types import Proposal, Request, State


@dataclass(frozen=True)
class Scientist:
    """Does the next gold action; with probability ``error`` it looks around or does any of them.

    What it does out of turn may lead it astray: it does not find its way back, as the gold actions
    are all it knows.
    """

    error: float = 0.1

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [
            [
                Proposal(self._act(request.state, generator(*request.key, k)))
                for k in range(request.n)
            ]
            for request in requests
        ]

    def _act(self, state: State, rng: np.random.Generator) -> str:
        gold, done = state.task.goal[2], 0
        for command in state.world:
            done += done < len(gold) and command == gold[done].lower()
        if done >= len(gold):
            return "look around"
        if rng.random() < self.error:
            return str(rng.choice(("look around", "inventory", *gold)))
        return gold[done]
