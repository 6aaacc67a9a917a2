"""A value head by classification: values as histograms (Stop Regressing, arXiv 2403.03950)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qvlib.base.settings import setting
from qvlib.core.types import QModel
from qvlib.estimators.estimator import Estimator, Fitted, OpenModel, Problem
from qvlib.estimators.head_settings import HeadSettings
from qvlib.estimators.histograms import Bins

if TYPE_CHECKING:
    import torch

    from qvlib.models.local import LocalModel


class HLGaussSettings(HeadSettings):
    """The settings of classification."""

    stage: ClassVar[str | None] = "q_model"

    histogram_bins: int = setting(51, "bins of a value's histogram (published: 51)", ge=21, le=1001)
    histogram_sigma: float = setting(
        0.75, "deviation of its Gaussian in widths of a bin (published: 0.75)", ge=0.1, le=2
    )


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """- sum_i p_i log softmax(z)_i of each action; logits z and histograms p, [n, bins]."""
    return -(targets * outputs.log_softmax(-1)).sum(-1)


def fit(problem: Problem, settings: HLGaussSettings) -> Fitted:
    """Fit to the histograms of the mean backup (AgentRM's target) of all visited actions.

    Raises:
        QvlibError: no state fits the model's context, or training diverged.
    """
    from qvlib.estimators.head_loop import fit_head
    from qvlib.estimators.heads import grouped

    groups = grouped(problem, problem.train_siblings())
    values = (value for group in groups for value in group.targets)
    bins = Bins.over(values, settings.histogram_bins, settings.histogram_sigma)
    told = [replace(g, targets=tuple(map(bins.histogram, g.targets))) for g in groups]
    fitted = fit_head(
        problem,
        told,
        settings,
        cross_entropy,
        outputs=bins.count,
        read=bins.mean,
        score="An estimate of the mean backed-up value of an action, in units of reward: the mean "
        "of a histogram.",
        recipe=f"cross-entropy on Gaussian histograms of the mean backup, {bins.count} bins",
    )

    def save(folder: Path) -> None:
        fitted.save(folder)
        bins.save(folder)

    return replace(fitted, save=save)


def load(
    folder: Path, reference: LocalModel, settings: HLGaussSettings, open_model: OpenModel
) -> QModel:
    """The means of the histograms that the head gives."""
    from qvlib.estimators.heads import scorer

    return scorer(folder, reference, open_model, Bins.load(folder).mean)


ESTIMATOR = Estimator(
    "hl_gauss",
    HLGaussSettings,
    fit,
    load,
    values=True,
    loss="qvlib.estimators.hl_gauss:cross_entropy",
    unit="reward",
)
