"""Rerank an agent's candidates by Q and execute the best (arXiv 2409.09345, section 5).

A reranked agent is an agent: it can be evaluated, searched with, or reranked again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.core.types import Agent, Cost, Proposal, QModel, Request, total


@dataclass(frozen=True)
class Reranked:
    """Samples ``n`` actions from ``agent`` and gives the best by Q first.

    score(a) = Q(a) + prior_weight * log pi_agent(a). ``q_model`` None means Q = 0: with
    ``prior_weight=1`` the likeliest of n, with ``temperature=inf`` a random one, the no-Q twins.
    temperature: 0 takes the highest score (ties: the action drawn first), else a draw from
    softmax(score / temperature) over the n candidates, without replacement: an action that was
    drawn twice counts twice, so that the choice follows pi_agent(a) exp(score(a) / temperature).
    Distinct actions are scored once. The first proposal's cost is that of all candidates.

    ``propose`` raises QvlibError where a score is nan, or a log-probability is needed and not told.
    """

    agent: Agent
    q_model: QModel | None
    n: int
    temperature: float = 0.0
    prior_weight: float = 0.0

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        drawn = self.agent.propose([replace(r, n=max(self.n, r.n)) for r in requests])
        distinct = [list(dict.fromkeys(p.action for p in proposals)) for proposals in drawn]
        if self.q_model is None:
            values = [[0.0] * len(actions) for actions in distinct]
        else:
            values = self.q_model.score([r.state for r in requests], distinct)
        return [
            self._best(request, proposals, dict(zip(actions, qs, strict=True)))
            for request, proposals, actions, qs in zip(
                requests, drawn, distinct, values, strict=True
            )
        ]

    def _best(
        self, request: Request, proposals: Sequence[Proposal], q: Mapping[str, float]
    ) -> list[Proposal]:
        """The ``request.n`` best, the best first."""
        candidates = tuple(replace(p, q=q[p.action]) for p in proposals)
        scores = np.array([self._score(p, q[p.action]) for p in candidates])
        if self.temperature:
            # Gumbel noise turns argmax into a draw from softmax(score / T) without replacement.
            noise = generator(*request.key, "rerank").gumbel(size=len(scores))
            scores = scores / self.temperature + noise
        best = [candidates[i] for i in np.argsort(-scores, kind="stable")[: request.n]]
        spent = total(p.cost for p in candidates)
        return [
            replace(p, considered=candidates, cost=Cost() if i else spent)
            for i, p in enumerate(best)
        ]

    def _score(self, proposal: Proposal, q: float) -> float:
        if math.isnan(q):
            raise QvlibError(f"the Q model scores {proposal.action!r:.80} as nan; fit it anew")
        if not self.prior_weight:
            return q
        if proposal.log_prob is None:
            raise QvlibError(
                f"prior_weight = {self.prior_weight:g}, but the agent tells no log-probability of "
                f"{proposal.action!r:.80}; set prior_weight to 0"
            )
        return q + self.prior_weight * proposal.log_prob
