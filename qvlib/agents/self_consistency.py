"""The arm self-consistency: of n samples the action that was drawn most often. No Q.

Arm of arXiv 2203.11171, a majority over sampled answers, taken step by step: actions are what is
compared, whatever thoughts led to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from qvlib.agents.arm import NO_Q, Cast, Player, arm
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import episode
from qvlib.core.types import FREE, Agent, Proposal, Request, total


class SelfConsistencySettings(Settings):
    """The majority of sampled actions."""

    stage: ClassVar[str | None] = "episodes/self_consistency_n5"

    self_consistency: bool = setting(
        False, "also play the arm self_consistency_n5: of five samples the one drawn most often"
    )


@dataclass(frozen=True)
class Majority:
    """Samples ``n`` actions from ``agent`` and gives the one drawn most often first.

    Ties go to the action drawn first. The first proposal's cost is that of all candidates.
    """

    agent: Agent
    n: int

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        drawn = self.agent.propose([replace(r, n=max(self.n, r.n)) for r in requests])
        return [_by_votes(row)[: r.n] for r, row in zip(requests, drawn, strict=True)]


def _by_votes(drawn: Sequence[Proposal]) -> list[Proposal]:
    votes, candidates = Counter(p.action for p in drawn), tuple(drawn)
    spent = total(p.cost for p in drawn)
    ordered = sorted(drawn, key=lambda p: -votes[p.action])  # stable: ties keep their order
    return [
        replace(p, considered=candidates, cost=FREE if i else spent) for i, p in enumerate(ordered)
    ]


def _player(cast: Cast) -> Player:
    return Player(Majority(cast.sampler(), 5), episode)


def _active(params: Any) -> bool:
    return params.self_consistency_n5.self_consistency


SELF_CONSISTENCY_N5 = arm(
    "self_consistency_n5",
    NO_Q,
    "of five sampled actions the one drawn most often (self-consistency)",
    _player,
    settings=SelfConsistencySettings,
    active=_active,
)
