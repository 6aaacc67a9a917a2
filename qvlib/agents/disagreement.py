"""A Q model that hopes where its critics disagree: Q + w std, for exploring, not for acting.

Upper-confidence exploration with an ensemble (SUNRISE, arXiv 2007.04938): the critics are Q models
fitted to half of the tasks each, so that they differ where the data say little (bootstrapped DQN,
arXiv 1602.04621, whose masks are coins too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.types import QModel, State


def is_drawn(task: str, seed: int, critic: int) -> bool:
    """Whether a critic is fitted to a task: by a coin of its own, whatever else there is."""
    return bool(generator(seed, task, "critic", critic).integers(2))


@dataclass(frozen=True)
class Hopeful:
    """Q(a) + weight * std_k(Q_k(a) - mean of Q_k over the candidates of the state).

    Each critic's mean is taken off first, since Q is defined up to a constant of the state, and
    another for each critic. One candidate alone leaves nothing to disagree about.

    q_model: whose Q it is. critics: two or more. weight: 0 is the Q model itself.
    """

    q_model: QModel
    critics: Sequence[QModel]
    weight: float

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        """Q of each action of each state, and its share of the critics' disagreement."""
        q = self.q_model.score(states, actions)
        told = [critic.score(states, actions) for critic in self.critics]
        return [
            [value + self.weight * spread for value, spread in zip(row, _spread(each), strict=True)]
            for row, each in zip(q, zip(*told, strict=True), strict=True)
        ]


def _spread(told: Sequence[Sequence[float]]) -> list[float]:
    """Standard deviation over critics of centred scores [critics, actions], an action each."""
    scores = np.array(told)
    if scores.shape[1] == 0:
        return []
    return (scores - scores.mean(1, keepdims=True)).std(0).tolist()
