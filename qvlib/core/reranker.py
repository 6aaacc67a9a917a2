"""Agents made of agents: keep only actions the environment accepts; execute the one with the highest Q.

A reranked agent is an agent: it can be evaluated, searched with, or reranked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.types import Agent, Environment, Proposal, QModel, Request

if TYPE_CHECKING:
    from qvlib.core.lockstep import Job

T = TypeVar("T")


@dataclass(frozen=True)
class Filtered:
    """Redraws actions that the environment says it would refuse or that change nothing.

    A slot that is refused ``attempts`` times keeps its last draw. What was redrawn is counted in
    ``Proposal.refused``, its tokens in ``Proposal.tokens``, and so on. Redraws come from ``fallback`` where it is
    given: a greedy agent would only repeat itself.
    """

    agent: Agent
    environment: Environment
    attempts: int = 8
    fallback: Agent | None = None

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        answers = self.agent.propose(requests)
        for attempt in range(1, self.attempts):
            open_slots = [
                (i, self._refused(request, answers[i])) for i, request in enumerate(requests)
            ]
            open_slots = [(i, slots) for i, slots in open_slots if slots]
            if not open_slots:
                break
            again = [_again(requests[i], slots, attempt) for i, slots in open_slots]
            for (i, slots), drawn in zip(
                open_slots, (self.fallback or self.agent).propose(again), strict=True
            ):
                _redraw(answers[i], slots, drawn)
        return answers

    def around(self, job: Job[T]) -> Job[T]:
        """The same job for the bare agent: it asks for its redraws itself, so that they share calls with other jobs."""
        answers = None
        while True:
            try:
                request = job.send(answers)
            except StopIteration as end:
                return end.value
            answers = yield request
            for attempt in range(1, self.attempts):
                slots = self._refused(request, answers)
                if not slots:
                    break
                _redraw(answers, slots, (yield _again(request, slots, attempt)))

    def _refused(self, request: Request, proposals: Sequence[Proposal]) -> list[int]:
        return [
            k
            for k, p in enumerate(proposals)
            if self.environment.accepts(request.state, p.action) is False
        ]


def _again(request: Request, slots: Sequence[int], attempt: int) -> Request:
    """The request for as many draws as there are slots to fill, with a key of its own."""
    return replace(request, n=len(slots), key=(*request.key[:2], f"{request.key[2]}~{attempt}"))


def _redraw(answers: list[Proposal], slots: Sequence[int], drawn: Sequence[Proposal]) -> None:
    """Put new draws into the slots; each goes on counting what its slot has cost."""
    for k, new in zip(slots, drawn, strict=True):
        old = answers[k]
        answers[k] = replace(
            new,
            tokens=old.tokens + new.tokens,
            refused=old.refused + 1,
            prompt_tokens=old.prompt_tokens + new.prompt_tokens,
            unparsable=old.unparsable + new.unparsable,
        )


@dataclass(frozen=True)
class Listed:
    """Adds to the sampled candidates every action that the environment lists and accepts.

    Free-text actions (``verb[<...>]``) come from sampling alone. What is added gets the model's own
    log-probability, so that a prior can weigh it; many of these the agent would hardly ever sample.
    """

    agent: Agent
    environment: Environment
    lm: Any

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        answers = self.agent.propose(requests)
        more = [
            self._unsampled(request, proposals)
            for request, proposals in zip(requests, answers, strict=True)
        ]
        prompts = [self.lm.prompt(request.state) for request in requests]
        ids = [
            [self.lm.action_ids(prompt, action) for action in actions]
            for (prompt, _), actions in zip(prompts, more, strict=True)
        ]
        scores = self.lm.log_probs([p for _, p in prompts], ids)
        return [
            [*proposals, *(Proposal(a, s) for a, s in zip(actions, found, strict=True))]
            for proposals, actions, found in zip(answers, more, scores, strict=True)
        ]

    def _unsampled(self, request: Request, proposals: Sequence[Proposal]) -> list[str]:
        known = {p.action for p in proposals}
        return [
            a
            for a in request.state.admissible or ()
            if "<" not in a
            and a not in known
            and self.environment.accepts(request.state, a) is not False
        ]


@dataclass(frozen=True)
class Reranked:
    """Samples ``n`` actions from ``agent`` and gives the best by Q first (arXiv 2409.09345, section 5).

    score(a) = Q(a) + prior_weight * log pi_agent(a). ``q_model`` None means Q = 0: with
    ``prior_weight=1`` the likeliest of n, with ``temperature=inf`` a random one, the no-Q twins.
    temperature: 0 takes the highest score (ties: the action drawn first), else a draw from
    softmax(score / temperature) without replacement. Distinct actions are scored once.
    """

    agent: Agent
    q_model: QModel | None
    n: int
    temperature: float = 0.0
    prior_weight: float = 0.0

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        drawn = self.agent.propose([replace(r, n=max(self.n, r.n)) for r in requests])
        texts = [list(dict.fromkeys(p.action for p in proposals)) for proposals in drawn]
        if self.q_model is None:
            values = [[0.0] * len(t) for t in texts]
        else:
            values = self.q_model.score([r.state for r in requests], texts)
        return [
            self._best(request, proposals, dict(zip(t, v, strict=True)))
            for request, proposals, t, v in zip(requests, drawn, texts, values, strict=True)
        ]

    def _best(
        self, request: Request, proposals: list[Proposal], q: dict[str, float]
    ) -> list[Proposal]:
        candidates = tuple(replace(p, q=q[p.action]) for p in proposals)
        scores = np.array(
            [
                q[p.action]
                + (self.prior_weight * (p.log_prob or 0.0) if self.prior_weight else 0.0)
                for p in candidates
            ]
        )
        if self.temperature:
            # Gumbel noise turns argmax into a draw from softmax(score / T) without replacement.
            scores = scores / self.temperature + generator(*request.key, "rerank").gumbel(
                size=len(scores)
            )
        order = np.argsort(-scores, kind="stable")[: request.n]
        cost = {
            name: sum(getattr(p, name) for p in candidates)
            for name in ("tokens", "prompt_tokens", "refused", "unparsable")
        }
        best = [replace(candidates[i], considered=candidates) for i in order]
        none = dict.fromkeys(cost, 0)
        return [replace(p, **(cost if i == 0 else none)) for i, p in enumerate(best)]
