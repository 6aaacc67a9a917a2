"""A value head by regression on the best child's value (QLASS, arXiv 2502.02584, sec. 3.3)."""

from __future__ import annotations

from typing import Any, ClassVar

from qvlib.base.settings import setting
from qvlib.core.step_values import backed_up
from qvlib.estimators.agentrm import load, squared_error
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.head_settings import HeadSettings


class QlassSettings(HeadSettings):
    """The settings of regression on the max backup."""

    stage: ClassVar[str | None] = "q_model"

    backup_discount: float = setting(
        0.9, "what is left of a value a step further away (QLASS: 0.9)", gt=0, le=1
    )


def fit(problem: Problem, settings: QlassSettings) -> Fitted:
    """Fit to Q(s, a) = r + gamma max_a' Q(s', a') of all visited actions (eq. 4 there).

    Raises:
        QvlibError: no state fits the model's context, or training diverged.
    """
    from qvlib.estimators.head_loop import fit_head
    from qvlib.estimators.heads import grouped

    def best(tree: Any) -> dict[str, float]:
        return backed_up(tree, "max", settings.backup_discount)

    return fit_head(
        problem,
        grouped(problem, problem.train_siblings(best)),
        settings,
        squared_error,
        score="An estimate of the best value that was found after an action, in units of reward.",
        recipe=f"squared error on the max backup, discount factor {settings.backup_discount:g}",
    )


ESTIMATOR = Estimator(
    "qlass",
    QlassSettings,
    fit,
    load,
    values=True,
    loss="qvlib.estimators.agentrm:squared_error",
    unit="reward",
)
