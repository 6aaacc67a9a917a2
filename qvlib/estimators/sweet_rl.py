"""The critic of SWEET-RL (arXiv 2503.15478), without what it is told in training.

The advantage of a turn is the mean log-ratio over its tokens; trajectories are compared by its sum
over turns (Bradley-Terry). The paper's critic also reads the task's reference solution, in training
and whenever it ranks actions, of training tasks alone: it makes the pairs that a policy is then
tuned on. Here the critic itself is asked, at test, where no solution may be read; nor does any
world of this library tell one. So it reads the agent's prompt and no more. The sum over turns is as
we read the method; its equations were not at hand, and its public code takes the mean over all
tokens of a trajectory.
"""

from __future__ import annotations

from typing import Literal

from qvlib.base.settings import setting
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.tuned import TunedSettings, load


class SweetRLSettings(TunedSettings):
    """The settings of the critic; a batch is of pairs of trajectories."""

    beta: float = setting(0.1, "beta of the Bradley-Terry loss (SWEET-RL: 0.1)", gt=0)
    log_prob: Literal["sum", "mean"] = setting(
        "mean", "log-probability of an action over its tokens (SWEET-RL: mean)"
    )


def fit(problem: Problem, settings: SweetRLSettings) -> Fitted:
    """Tune a copy of the reference on the trees of training tasks; ``pairs`` counts trees.

    Raises:
        QvlibError: as ``trajectory_dpo.fit``.
    """
    from qvlib.estimators.trajectories import fit_trajectories

    return fit_trajectories(
        problem, settings, "SWEET-RL's critic without training-time information"
    )


ESTIMATOR = Estimator(
    "sweet_rl",
    SweetRLSettings,
    fit,
    load,
    policy=True,
    loss="qvlib.estimators.trajectory_dpo:trajectory_loss",
    unit="nats",
)
