"""The difference of two values as a difference of log-ratios: REBEL (arXiv 2404.16767).

Pairs of siblings say how far apart their values are, not only which is better. With beta = 1 / eta
the loss is that of the paper's algorithm 1; its public code minimises eta^2 times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qvlib.base.settings import setting
from qvlib.core.preferences import Pair
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.tuned import TunedSettings, load
from qvlib.estimators.tuning import fit_by_loop

if TYPE_CHECKING:
    from torch import Tensor

    from qvlib.estimators.data import ValuedIds


class RebelSettings(TunedSettings):
    """The settings of REBEL."""

    beta: float = setting(
        0.1, "1 / eta of REBEL, the reward that a nat of log-ratio stands for (its code: 1)", gt=0
    )


def rebel_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    difference: Tensor,
    beta: float,
) -> Tensor:
    """(beta [log-ratio(chosen) - log-ratio(rejected)] - difference)^2, [B].

    chosen, rejected, ref_*: log-probabilities in nats, [B]. difference: of the two values, [B].
    """
    return (beta * ((chosen - ref_chosen) - (rejected - ref_rejected)) - difference) ** 2


def valued(problem: Problem, pairs: Sequence[Pair]) -> list[ValuedIds]:
    """Token ids of pairs with the difference of their values, in favour of what is chosen.

    A control's pair that was turned round has its values turned too, and so its margin below 0:
    fitted to that it would learn what the search found. Its winner counts, by as much.
    """
    from qvlib.estimators.data import ValuedIds, encode

    rows = encode(problem.environment, problem.reference, pairs)
    return [
        ValuedIds(row.prompt, row.chosen, row.rejected, abs(pair.margin))
        for row, pair in zip(rows, pairs, strict=True)
    ]


def fit(problem: Problem, settings: RebelSettings) -> Fitted:
    """Tune a copy of the reference on the pairs that fit its context; the others are dropped.

    Raises:
        QvlibError: no pair fits, a pair's task is unknown, training diverged, or a launcher started
            several processes.
    """

    def loss(rows: Sequence[Any], *log_probs: Tensor) -> Tensor:
        difference = log_probs[0].new_tensor([row.difference for row in rows])
        return rebel_loss(*log_probs, difference, settings.beta)

    return fit_by_loop(
        problem,
        settings,
        valued(problem, problem.train),
        valued(problem, problem.held_out),
        f"REBEL, beta {settings.beta:g}",
        loss=loss,
        terms={"loss": "rebel"},
    )


ESTIMATOR = Estimator(
    "rebel",
    RebelSettings,
    fit,
    load,
    policy=True,
    loss="qvlib.estimators.rebel:rebel_loss",
    unit="nats",
)
