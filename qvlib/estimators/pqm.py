"""A head by the order of steps along a path (PQM, arXiv 2410.11287)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from qvlib.base.errors import QvlibError
from qvlib.base.settings import setting
from qvlib.core.step_values import backed_up, siblings
from qvlib.estimators.agentrm import load
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.head_settings import HeadSettings

if TYPE_CHECKING:
    import torch


class PQMSettings(HeadSettings):
    """The settings of the order of steps."""

    stage: ClassVar[str | None] = "q_model"

    rank_margin: float = setting(
        4.0, "how far wrong steps are put below right ones, in nats (published: 4)", ge=0
    )
    right_above: float = setting(
        0.5,
        "value above which a step is right (published: some path succeeds, which is 0 where "
        "rewards are 0 or 1)",
        ge=-1,
        lt=1,
    )


def ranking(outputs: torch.Tensor, targets: torch.Tensor, margin: float = 4.0) -> torch.Tensor:
    """The comparative loss of the steps of one path, a term a right step (eq. 10).

    Right steps c_1, c_2, ... ascend from the start, whose Q is 0, and all wrong steps W lie the
    margin below each of them: -log exp Q_ct / (sum_{q <= t} exp Q_cq + sum_W exp(Q_w + margin)).
    As in the published code the start is a term of its own where there are wrong steps.

    outputs: Q along the path, [n, 1]. targets: 1 of right steps, 0 of wrong ones, [n].
    """
    import torch

    q, right = outputs[:, 0], targets > 0.5
    ascending = torch.cat([q.new_zeros(1), q[right]])
    below = torch.logcumsumexp(ascending, 0)
    if right.all():
        return (below - ascending)[1:]
    wrong = torch.logsumexp(q[~right] + margin, 0)
    return torch.logaddexp(below, wrong) - ascending


def fit(problem: Problem, settings: PQMSettings) -> Fitted:
    """Fit to the paths of the trees, each to a last visited action.

    PQM scores an answer by the least of its steps; here a step is scored by itself, against others
    of its state, of which no loss was taken.

    Raises:
        QvlibError: all steps are right or all wrong, no path fits the model's context, or training
            diverged.
    """
    from qvlib.estimators.head_loop import fit_head
    from qvlib.estimators.heads import encode_paths

    least = settings.right_above
    paths = [
        replace(path, targets=tuple(float(value > least) for value in path.targets))
        for path in encode_paths(
            problem, (siblings(tree, backed_up(tree)) for tree in problem.train_trees())
        )
    ]
    labels = {label for path in paths for label in path.targets}
    if len(labels) == 1:
        which, remedy = ("right", "raise") if 1.0 in labels else ("wrong", "lower")
        raise QvlibError(
            f"every step of the trees is {which}, none to be told from it; {remedy} right_above "
            f"(now {least:g})"
        )
    return fit_head(
        problem,
        paths,
        settings,
        partial(ranking, margin=settings.rank_margin),
        score="How much likelier a step is a right one than the start of a path is, in nats. It "
        "estimates no reward.",
        recipe=f"order of the steps of a path, margin {settings.rank_margin:g}, a step being right "
        f"where its mean backup is above {least:g}",
        each="paths",
    )


ESTIMATOR = Estimator(
    "pqm", PQMSettings, fit, load, loss="qvlib.estimators.pqm:ranking", unit="nats"
)
