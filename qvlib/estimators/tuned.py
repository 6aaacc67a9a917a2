"""Estimators that tune a policy and score by its log-ratio: their settings, how one is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from qvlib.base.settings import Settings, setting
from qvlib.core.types import QModel
from qvlib.estimators.estimator import OpenModel

if TYPE_CHECKING:
    from qvlib.models.local import LocalModel


class TunedSettings(Settings):
    """How a policy is tuned, and how it scores."""

    stage: ClassVar[str | None] = "q_model"

    beta: float = setting(0.1, "beta of DPO (paper: 0.1 WebShop, 0.05 HotPotQA)", gt=0)
    log_prob: Literal["sum", "mean"] = setting(
        "sum", "log-probability of an action over its tokens (paper: sum)"
    )
    score_rule: Literal["as_trained", "sum", "mean", "published_code"] = setting(
        "as_trained",
        "how actions are scored: as log_prob says, or by another rule; published_code = exp of the "
        "mean log softmax of the logits' difference (paper's code)",
        decides=("rerank", "trial", "rules", "guide"),
    )
    dpo_lr: float = setting(1.0e-4, "peak learning rate of DPO (paper: 1e-6 for 1.3 B)", gt=0)
    dpo_schedule: Literal["linear", "constant"] = setting(
        "linear", "learning rate after a tenth of warm-up: linear to 0, or constant (paper)"
    )
    dpo_epochs: int = setting(1, "epochs of DPO (paper: 1)", ge=1)
    dpo_batch: int = setting(8, "pairs a batch (paper: 64)", ge=1)


def load(
    folder: Path, reference: LocalModel, settings: TunedSettings, open_model: OpenModel
) -> QModel:
    """Log pi - log pi_ref; an adapter is switched on in the reference's memory for each call."""
    from qvlib.estimators.log_ratio import LogRatio
    from qvlib.models.adapters import Switched, is_adapter

    if is_adapter(folder):
        policy = reference.tuned(Switched(reference.model, folder))
    else:
        policy = open_model(folder, str(reference.model.dtype).removeprefix("torch."))
    as_trained = settings.score_rule == "as_trained"
    rule = settings.log_prob if as_trained else settings.score_rule
    return LogRatio(policy, reference, rule)
