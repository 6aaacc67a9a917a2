"""A value head by classification of prefixes: will this end well (TVM, arXiv 2407.12863)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qvlib.base.errors import QvlibError
from qvlib.base.settings import setting
from qvlib.core.step_values import Siblings, outcomes
from qvlib.core.trees import check_tree
from qvlib.core.types import QModel
from qvlib.estimators.estimator import Estimator, Fitted, OpenModel, Problem
from qvlib.estimators.head_settings import HeadSettings

if TYPE_CHECKING:
    import torch

    from qvlib.models.local import LocalModel


class TVMSettings(HeadSettings):
    """The settings of classification of prefixes."""

    stage: ClassVar[str | None] = "q_model"

    success_reward: float = setting(
        1.0, "reward from which a path succeeds (published: a right answer)", gt=-1, le=1
    )


def success_shares(tree: Mapping[str, Any], success_reward: float) -> dict[str, float]:
    """Node -> the share of the paths through it that succeed, in [0, 1], of visited nodes.

    A path leads to what was visited last, an end or a leaf, and is worth what its episode ended
    with, undiscounted (``outcomes``). It counts once: a further visit is no new sample.
    ``best_reward`` of a node above is the best of several episodes, and one from a state that was
    opened later is in its mean alone: they tell no share.

    Raises:
        QvlibError: as ``check_tree``.
    """
    check_tree(tree)
    visited, got = [row for row in tree["nodes"] if row["visits"]], outcomes(tree)
    inner = {row["parent"] for row in visited}
    paths: dict[Any, list[int]] = {}  # node -> [paths that succeed, paths]
    for row in reversed(visited):  # children come after their parents
        if row["node"] not in inner:
            paths[row["node"]] = [int(got[row["node"]] >= success_reward), 1]
        above = paths.setdefault(row["parent"], [0, 0])
        above[0] += paths[row["node"]][0]
        above[1] += paths[row["node"]][1]
    return {row["node"]: paths[row["node"]][0] / paths[row["node"]][1] for row in visited}


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """- p log s(z) - (1 - p) log s(-z) of each prefix; logits z [n, 1], shares p [n] in [0, 1]."""
    from torch.nn import functional as F

    return F.binary_cross_entropy_with_logits(outputs[:, 0], targets, reduction="none")


def probability(outputs: torch.Tensor) -> torch.Tensor:
    """Logits [N, 1] -> probabilities of success [N]."""
    return outputs[..., 0].sigmoid()


def _in_bounds(group: Siblings) -> tuple[float, ...]:
    """Shares in [0, 1], which a control's are moved out of."""
    return tuple(min(max(share, 0.0), 1.0) for share in group.values)


def fit(problem: Problem, settings: TVMSettings) -> Fitted:
    """Fit to the share of paths through each visited action that succeed (TVM: each token).

    Raises:
        QvlibError: no path succeeds, no state fits the model's context, or training diverged.
    """
    from qvlib.estimators.head_loop import fit_head
    from qvlib.estimators.heads import grouped

    least = settings.success_reward
    steps = list(problem.train_siblings(lambda tree: success_shares(tree, least)))
    if not any(share > 0 for group in steps for share in group.values):
        raise QvlibError(
            f"no path of the trees got a reward of {least:g}, so all actions would be worth 0; "
            "lower success_reward, or search more tasks"
        )
    return fit_head(
        problem,
        grouped(problem, steps, _in_bounds),
        settings,
        cross_entropy,
        read=probability,
        score=f"The probability that an episode ends with a reward of {least:g} or more.",
        recipe=f"cross-entropy on the share of paths that get {least:g} or more",
    )


def load(
    folder: Path, reference: LocalModel, settings: TVMSettings, open_model: OpenModel
) -> QModel:
    """Probabilities of success."""
    from qvlib.estimators.heads import scorer

    return scorer(folder, reference, open_model, probability)


ESTIMATOR = Estimator(
    "tvm",
    TVMSettings,
    fit,
    load,
    values=True,
    loss="qvlib.estimators.tvm:cross_entropy",
    unit="probability of success",
)
