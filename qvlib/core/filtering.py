"""Keep only candidates that the environment accepts: draw again what it would refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from qvlib.core.types import Agent, Cost, Environment, Job, Proposal, Request

T = TypeVar("T")


@dataclass(frozen=True)
class Filtered:
    """Redraws actions that the environment says it would refuse or that change nothing.

    After ``attempts`` refusals the last draw is kept. A proposal's cost holds that of all draws in
    its place, and how many were refused. Redraws come from ``fallback`` where it is given: a greedy
    agent would only repeat itself.
    """

    agent: Agent
    environment: Environment
    attempts: int = 8
    fallback: Agent | None = None

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        answers = self.agent.propose(requests)
        redrawing = self.fallback or self.agent
        for attempt in range(1, self.attempts):
            refused = {
                i: slots
                for i, request in enumerate(requests)
                if (slots := self._refused(request, answers[i]))
            }
            if not refused:
                break
            again = [_again(requests[i], slots, attempt) for i, slots in refused.items()]
            drawn = redrawing.propose(again)
            for (i, slots), proposals in zip(refused.items(), drawn, strict=True):
                _redraw(answers[i], slots, proposals)
        return answers

    @property
    def inner(self) -> Agent | None:
        """The one agent that answers all of its requests (``lockstep.Wraps``)."""
        return self.agent if self.fallback is None else None

    def around(self, job: Job[T]) -> Job[T]:
        """The same job for the bare agent: it asks for its redraws itself."""
        answers: list[Proposal] | None = None
        while True:
            try:
                request = next(job) if answers is None else job.send(answers)
            except StopIteration as end:
                result: T = end.value
                return result
            answers = yield request
            for attempt in range(1, self.attempts):
                slots = self._refused(request, answers)
                if not slots:
                    break
                _redraw(answers, slots, (yield _again(request, slots, attempt)))

    def _refused(self, request: Request, proposals: Sequence[Proposal]) -> list[int]:
        """The slots whose actions the environment would refuse."""
        accepts = self.environment.accepts
        return [k for k, p in enumerate(proposals) if accepts(request.state, p.action) is False]


def _again(request: Request, slots: Sequence[int], attempt: int) -> Request:
    """The request for as many draws as there are slots to fill, with a key of its own."""
    return replace(request, n=len(slots), key=(*request.key[:2], f"{request.key[2]}~{attempt}"))


def _redraw(answers: list[Proposal], slots: Sequence[int], drawn: Sequence[Proposal]) -> None:
    """Put new draws into the slots; each goes on counting what its slot has cost."""
    for k, new in zip(slots, drawn, strict=True):
        answers[k] = replace(new, cost=answers[k].cost + new.cost + Cost(refused=1))
