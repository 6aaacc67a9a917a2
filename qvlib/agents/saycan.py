"""The arm SayCan: of n samples the one with the highest prior times value.

SayCan (arXiv 2204.01691) multiplies what the language model finds likely with a value in [0, 1]:
argmax of log pi(a) + log V. It needs a score that is a value. With any other score, and for VAS or
Transfer Q* (arXiv 2405.06639), which weigh pi(a) exp(Q / beta), ``prior_weight`` = beta of
``Reranked`` is that already: argmax of Q + beta log pi(a).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from qvlib.agents.arm import RERANKED, Cast, Player, arm
from qvlib.agents.sampling import tells_log_probs
from qvlib.agents.values import wants_values
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import episode
from qvlib.core.reranker import Reranked
from qvlib.core.types import QModel, State


class SayCanSettings(Settings):
    """Prior times value."""

    stage: ClassVar[str | None] = "episodes/saycan_n5"

    saycan: bool = setting(
        False, "also play the arm saycan_n5: of five samples the highest pi times value"
    )
    saycan_floor: float = setting(
        0.01, "the value that lower ones count as, so that they have a logarithm (ours)", gt=0, le=1
    )


@dataclass(frozen=True)
class LogValue:
    """The logarithm of a value, which is cut off to [floor, 1]: at most 0."""

    q_model: QModel
    floor: float

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        return [
            # nan stays nan, which the reranker refuses
            [
                value if math.isnan(value) else math.log(min(1.0, max(self.floor, value)))
                for value in row
            ]
            for row in self.q_model.score(states, actions)
        ]


def _player(cast: Cast) -> Player:
    value = LogValue(cast.q_model(), cast.params.saycan_n5.saycan_floor)
    return Player(Reranked(cast.sampler(), value, 5, prior_weight=1.0), episode)


def _active(params: Any) -> bool:
    return params.saycan_n5.saycan


def _wrong(params: Any) -> str:
    if not tells_log_probs(params):
        return "an agent behind a server tells no log-probabilities to multiply; set it to false"
    return wants_values(params)


SAYCAN_N5 = arm(
    "saycan_n5",
    RERANKED,
    "of five sampled actions the one with the highest probability times value (SayCan)",
    _player,
    needs=("q_model",),
    decided_by=("rerank",),
    settings=SayCanSettings,
    active=_active,
    wrong=_wrong,
)
