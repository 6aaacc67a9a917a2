"""A head by pairs of siblings (Bradley and Terry), as reward models are trained: no reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import rank
from qvlib.base.settings import setting
from qvlib.estimators.agentrm import load
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.head_settings import HeadSettings

if TYPE_CHECKING:
    import torch


class BradleyTerrySettings(HeadSettings):
    """The settings of a head on pairs; ``fit_batch`` counts pairs."""

    stage: ClassVar[str | None] = "q_model"

    trainer: Literal["loop", "trl"] = setting(
        "loop", "loop = plain PyTorch for small models; trl = RewardTrainer, of features: tuned"
    )


def preference(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log s(r_w - r_l) of one pair, [1]; outputs [2, 1], targets 1 of the winner and 0, [2]."""
    import torch

    winner, loser = outputs[:, 0][targets.argsort(descending=True)]
    return -torch.nn.functional.logsigmoid(winner - loser)[None]


def fit(problem: Problem, settings: BradleyTerrySettings) -> Fitted:
    """Fit to the training pairs that fit the model's context; the others are dropped.

    Raises:
        QvlibError: no pair fits, a pair's task is unknown, training diverged, or TRL is asked for
            frozen features or started as several processes.
    """
    from qvlib.estimators import heads
    from qvlib.estimators.data import encode, some_fit
    from qvlib.estimators.head_loop import finished, fit_head

    lm = problem.reference
    pairs = encode(problem.environment, lm, problem.train)
    told: dict[str, Any] = {
        "score": "The log of the odds, in nats, that an action is the better of two is the "
        "difference of their scores. It ranks the actions of one state and compares no two states.",
        "recipe": "preference loss on pairs of siblings (Bradley and Terry)",
        "each": "pairs",
    }
    if settings.trainer == "trl":
        if settings.features != "tuned" or rank()[1] > 1:
            raise QvlibError(
                "trainer: trl tunes a model and its head in one process; set features: tuned and "
                "start it without a launcher, or set trainer: loop"
            )
        from qvlib.estimators.bradley_terry_trl import train

        fit, _ = some_fit(lm, pairs, [])
        told["dropped"] = len(pairs) - len(fit)
        groups = heads.of_pairs(fit)
        return finished(problem, groups, settings, *train(problem, fit, settings), **told)
    return fit_head(problem, heads.of_pairs(pairs), settings, preference, **told)


ESTIMATOR = Estimator(
    "bradley_terry",
    BradleyTerrySettings,
    fit,
    load,
    loss="qvlib.estimators.bradley_terry:preference",
    unit="nats",
)
