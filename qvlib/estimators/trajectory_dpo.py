"""Trajectory-level DPO (eq. 7 of arXiv 2409.09345; ETO, arXiv 2403.02502): the paper's ablation.

Best against worst trajectory of a tree, with the loss of DPO on the sum of the log-ratios of all
steps of each. Which step made the difference is not told. The score of an action is its own
log-ratio, as in step-level DPO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qvlib.base.settings import setting
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.tuned import TunedSettings, load

if TYPE_CHECKING:
    from torch import Tensor


class TrajectoryDPOSettings(TunedSettings):
    """The settings of trajectory-level DPO; a batch is of pairs of trajectories."""

    beta: float = setting(0.1, "beta of DPO (ETO: 0.1, after its first round 0.5)", gt=0)


def trajectory_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """-log sigmoid(beta [sum over steps of log pi/pi_ref, best - worst]), [B].

    chosen, rejected: log-probabilities of the best and the worst trajectory under the policy, sums
    over their steps, nats, [B]; ref_*: under the reference.
    """
    from qvlib.core.dpo import dpo_loss

    return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)


def fit(problem: Problem, settings: TrajectoryDPOSettings) -> Fitted:
    """Tune a copy of the reference on the trees of training tasks; ``pairs`` counts trees.

    Raises:
        QvlibError: no tree has two ends of different worth, no two trajectories fit the model's
            context, training diverged, or a launcher started several processes.
    """
    from qvlib.estimators.trajectories import fit_trajectories

    return fit_trajectories(problem, settings, "trajectory-level DPO")


ESTIMATOR = Estimator(
    "trajectory_dpo",
    TrajectoryDPOSettings,
    fit,
    load,
    policy=True,
    loss="qvlib.estimators.trajectory_dpo:trajectory_loss",
    unit="nats",
)
