"""Step-level DPO (arXiv 2409.09345): a model tuned on pairs, scored against its reference.

Two trainers minimise the same loss (``qvlib.core.dpo.dpo_loss``): a plain loop for
small models, which needs a good half of TRL's time for them, and TRL's ``DPOTrainer`` for large
ones, with LoRA and several processes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import rank
from qvlib.base.settings import setting
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.tuned import TunedSettings, load
from qvlib.estimators.tuning import card, facts_of, fit_by_loop, options


class StepDPOSettings(TunedSettings):
    """The settings of step-level DPO."""

    trainer: Literal["loop", "trl"] = setting(
        "loop", "loop = plain PyTorch for small models; trl = DPOTrainer"
    )
    lora_rank: int = setting(0, "rank of the LoRA of trainer trl; 0 = full fine-tuning", ge=0)

    @property
    def adapts(self) -> bool:
        """Whether a LoRA is trained, not all weights: the plain loop has none."""
        return self.trainer == "trl" and self.lora_rank > 0


def fit(problem: Problem, settings: StepDPOSettings) -> Fitted:
    """Tune a copy of the reference on the pairs that fit its context; the others are dropped.

    Where the plain loop cannot pack a pair for this kind of model (``data.packs``), each action is
    a pass of its own, and the fact ``packed`` is false.

    Raises:
        QvlibError: no pair fits, a pair's task is unknown, training diverged, or several processes
            and a trainer or a batch that they cannot share.
    """
    from qvlib.estimators.data import encode, some_fit

    if settings.trainer != "trl" and rank()[1] > 1:
        raise QvlibError(
            "trainer: loop trains in one process alone; set trainer: trl, or start it without a "
            "launcher"
        )
    lm, method = problem.reference, f"step-level DPO, beta {settings.beta:g}"
    rows, held_out = (
        encode(problem.environment, lm, pairs) for pairs in (problem.train, problem.held_out)
    )
    if settings.trainer == "loop":
        return fit_by_loop(problem, settings, rows, held_out, method)
    from qvlib.estimators.step_dpo_trl import train

    used = some_fit(lm, rows, held_out)
    lora = settings.lora_rank
    tuned, curve = train(lm, *used, **options(problem, settings), lora_rank=lora)
    facts = facts_of(problem, settings, tuned, curve, (rows, held_out), used)

    def save(folder: Path) -> None:
        if settings.adapts:
            shutil.copytree(problem.scratch / "adapter", folder)
            lm.tokenizer.save_pretrained(folder)
        else:
            tuned.save(folder)

    return Fitted(save, curve, facts, card(settings, facts, method, lora))


ESTIMATOR = Estimator(
    "step_dpo",
    StepDPOSettings,
    fit,
    load,
    policy=True,
    loss="qvlib.core.dpo:dpo_loss",
    unit="nats",
)
