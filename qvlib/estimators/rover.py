"""A value head fitted to the Q of acting at random (ROVER, arXiv 2509.24981).

The best action by the Q of the uniform policy is optimal where transitions are deterministic, no
state is reached by two ways and ends are worth 0 or 1 (their theorem). Elsewhere a few greedy steps
on top of it often are (Effective Horizon, arXiv 2304.09853; SQIRL, 2312.08369, fits them).
"""

from __future__ import annotations

from typing import Any, ClassVar

from qvlib.base.settings import setting
from qvlib.core.step_values import backed_up
from qvlib.estimators.agentrm import load, squared_error
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.head_settings import HeadSettings


class RoverSettings(HeadSettings):
    """The settings of regression on the uniform backup."""

    stage: ClassVar[str | None] = "q_model"

    sweeps: int = setting(
        0,
        "greedy steps before acting at random (ROVER: 0; Effective Horizon: k - 1 of its k)",
        ge=0,
    )
    backup_discount: float = setting(
        1.0, "what is left of a value a step further away (ROVER: 1)", gt=0, le=1
    )


def fit(problem: Problem, settings: RoverSettings) -> Fitted:
    """Fit to Q(s, a) = r + gamma mean_a' Q(s', a') of all visited actions.

    The mean is over the actions that the search visited, and backed up through the whole tree; a
    leaf is worth what the agent found from there. ROVER itself has no tree: its actions are all
    tokens of the vocabulary, its Q is the model's own log-ratio, and the mean one of its guesses.

    Raises:
        QvlibError: no state fits the model's context, or training diverged.
    """
    from qvlib.estimators.head_loop import fit_head
    from qvlib.estimators.heads import grouped

    def at_random(tree: Any) -> dict[str, float]:
        return backed_up(tree, "uniform", settings.backup_discount, settings.sweeps)

    greedy = f"{settings.sweeps} greedy steps, then actions" if settings.sweeps else "actions"
    return fit_head(
        problem,
        grouped(problem, problem.train_siblings(at_random)),
        settings,
        squared_error,
        score=f"An estimate of the value of an action before {greedy} at random, in units of "
        "reward.",
        recipe=f"squared error on the uniform backup, discount factor "
        f"{settings.backup_discount:g}, {settings.sweeps} greedy steps",
    )


ESTIMATOR = Estimator(
    "rover",
    RoverSettings,
    fit,
    load,
    values=True,
    loss="qvlib.estimators.agentrm:squared_error",
    unit="reward",
)
