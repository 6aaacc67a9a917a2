"""A value head by regression on the search's mean values (AgentRM, arXiv 2502.18407, sec. 3.2)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qvlib.base.settings import setting
from qvlib.core.step_values import advantages
from qvlib.core.types import QModel
from qvlib.estimators.estimator import Estimator, Fitted, OpenModel, Problem
from qvlib.estimators.head_settings import HeadSettings

if TYPE_CHECKING:
    import torch

    from qvlib.models.local import LocalModel

TARGETS = {"value": lambda group: group.values, "advantage": advantages}


class AgentRMSettings(HeadSettings):
    """The settings of regression on the mean backup."""

    target: Literal["value", "advantage"] = setting(
        "value",
        "what is fitted: the value (AgentRM), or the value less its siblings' mean, which compares "
        "no states",
    )

    @property
    def values(self) -> bool:
        """Whether scores compare states."""
        return self.target == "value"


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(V(s, a) - v)^2 of each action; outputs [n, 1], targets [n] in [-1, 1]."""
    return (outputs[:, 0] - targets) ** 2


def fit(problem: Problem, settings: AgentRMSettings) -> Fitted:
    """Fit to all visited actions of the trees of training tasks.

    Raises:
        QvlibError: no state fits the model's context, or training diverged.
    """
    from qvlib.estimators.head_loop import fit_head
    from qvlib.estimators.heads import grouped

    what = "mean backed-up value" if settings.target == "value" else "advantage over its siblings"
    return fit_head(
        problem,
        grouped(problem, problem.train_siblings(), TARGETS[settings.target]),
        settings,
        squared_error,
        score=f"An estimate of the {what} of an action, in units of reward.",
        recipe="squared error on the mean backup",
    )


def load(
    folder: Path, reference: LocalModel, settings: AgentRMSettings, open_model: OpenModel
) -> QModel:
    """The head on the hidden states of the model below it."""
    from qvlib.estimators.heads import scorer

    return scorer(folder, reference, open_model)


ESTIMATOR = Estimator(
    "agentrm",
    AgentRMSettings,
    fit,
    load,
    values=True,
    loss="qvlib.estimators.agentrm:squared_error",
    unit="reward",
)
