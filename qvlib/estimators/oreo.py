"""The soft Bellman equation along trajectories: a policy and its value (OREO, arXiv 2412.16145).

V(s_t) - V(s_t+1) = r_t - beta log pi(a_t | s_t) / pi_ref(a_t | s_t). Policy and value are two
networks, as in the paper; both start from the reference. Of the paper's states, all prefixes of a
trajectory, those before and after each action are taken. An action's score is V of the prefix that
ends with it, by which the paper's code too chooses among sampled actions; the policy is not kept.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qvlib.base.settings import Settings, setting
from qvlib.core.types import QModel
from qvlib.estimators.estimator import Estimator, Fitted, OpenModel, Problem

if TYPE_CHECKING:
    import torch

    from qvlib.models.local import LocalModel


class OreoSettings(Settings):
    """The settings of OREO."""

    stage: ClassVar[str | None] = "q_model"

    oreo_beta: float = setting(
        0.03, "weight of the log-ratio, units of reward a nat (OREO: 0.03)", gt=0
    )
    oreo_kl: float = setting(
        0.01, "weight of KL(pi || pi_ref), a token, in the policy's loss (OREO: 0.01)", ge=0
    )
    fit_lr: float = setting(
        3.0e-4, "peak learning rate; linear to 0 after a tenth (OREO: 5e-6 for 1.5 B)", gt=0
    )
    fit_epochs: int = setting(1, "epochs over the trajectories of the trees (OREO: 1 to 5)", ge=1)
    fit_batch: int = setting(8, "trajectories a batch (OREO: 128)", ge=1)

    @property
    def score_discount(self) -> float:
        """Its Bellman equation has no discount factor."""
        return 1.0


def soft_bellman(
    log_ratios: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    reward: float,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(L_V, L_pi) of one trajectory, means over its T steps, as the paper's code has them.

    L_V: (V_t - R + beta sum_{i >= t} rho_i)^2 of the state before each action, and of the prefix
    after it, of which rho_t is gone. L_pi: the former, with a gradient for rho_t alone.
    log_ratios: rho_t = log pi - log pi_ref in nats, [T]. before, after: V, [T]. reward: R, of the
    end.
    """
    ratios = beta * log_ratios.detach()
    rest = reward - (ratios.flip(0).cumsum(0).flip(0) - ratios)  # what is left after each action
    value = (before - rest + ratios) ** 2 + (after - rest) ** 2
    policy = (before.detach() - rest + beta * log_ratios) ** 2
    return value.mean(), policy.mean()


def fit(problem: Problem, settings: OreoSettings) -> Fitted:
    """Tune copies of the reference, as policy and below a linear value head, on the trajectories.

    Raises:
        QvlibError: no trajectory fits the model's context, a tree's task is unknown, or training
            diverged.
    """
    from qvlib.estimators.oreo_loop import Training, fit_trajectories

    training = Training(
        method=f"soft Bellman equation, beta {settings.oreo_beta:g}",
        kl=settings.oreo_kl,
        lr=settings.fit_lr,
        epochs=settings.fit_epochs,
        batch=settings.fit_batch,
    )
    return fit_trajectories(problem, training, partial(soft_bellman, beta=settings.oreo_beta))


def load(
    folder: Path, reference: LocalModel, settings: OreoSettings, open_model: OpenModel
) -> QModel:
    """V of the prefix that ends with the action."""
    from qvlib.estimators.heads import scorer

    return scorer(folder, reference, open_model)


ESTIMATOR = Estimator(
    "oreo",
    OreoSettings,
    fit,
    load,
    values=True,
    loss="qvlib.estimators.oreo:soft_bellman",
    unit="reward",
)
