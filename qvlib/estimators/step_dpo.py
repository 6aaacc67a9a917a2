"""Step-level DPO (arXiv 2409.09345): a model tuned on pairs, scored against its reference.

Two trainers minimise the same loss (``qvlib.core.dpo.dpo_loss``): a plain loop for
small models, which needs a good half of TRL's time for them, and TRL's ``DPOTrainer`` for large
ones, with LoRA and several processes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import rank
from qvlib.base.settings import Settings, setting
from qvlib.core.types import QModel
from qvlib.estimators.estimator import Card, Estimator, Fitted, OpenModel, Problem

if TYPE_CHECKING:
    from qvlib.models.local import LocalModel


class StepDPOSettings(Settings):
    """The settings of step-level DPO."""

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
    trainer: Literal["loop", "trl"] = setting(
        "loop", "loop = plain PyTorch for small models; trl = DPOTrainer"
    )
    lora_rank: int = setting(0, "rank of the LoRA of trainer trl; 0 = full fine-tuning", ge=0)
    dpo_lr: float = setting(1.0e-4, "peak learning rate of DPO (paper: 1e-6 for 1.3 B)", gt=0)
    dpo_schedule: Literal["linear", "constant"] = setting(
        "linear", "learning rate after a tenth of warm-up: linear to 0, or constant (paper)"
    )
    dpo_epochs: int = setting(1, "epochs of DPO (paper: 1)", ge=1)
    dpo_batch: int = setting(8, "pairs a batch (paper: 64)", ge=1)

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
    from qvlib.estimators.data import encode, ordered_by_task, packs, some_fit
    from qvlib.estimators.log_ratio import LogRatio

    if settings.trainer != "trl" and rank()[1] > 1:
        raise QvlibError(
            "trainer: loop trains in one process alone; set trainer: trl, or start it without a "
            "launcher"
        )
    lm = problem.reference
    train, held_out = some_fit(
        lm,
        encode(problem.environment, lm, problem.train),
        encode(problem.environment, lm, problem.held_out),
    )
    packed = settings.trainer != "loop" or packs(lm.model, [*train, *held_out], lm.end)
    tuned, curve = _trained(problem, settings, train, held_out, packed)
    judged = [row for row in curve if row["split"] == "held-out"]
    facts = {
        "pairs": len(train),
        "held_out_pairs": len(held_out),
        "held_out_by_task": ordered_by_task(problem, LogRatio(tuned, lm, settings.log_prob)),
        "held_out_accuracy": judged[-1]["accuracy"] if judged else None,
        "dropped_pairs": len(problem.train) - len(train),
        "dropped_held_out_pairs": len(problem.held_out) - len(held_out),
    } | ({} if packed else {"packed": False})

    def save(folder: Path) -> None:
        if settings.adapts:
            shutil.copytree(problem.scratch / "adapter", folder)
            lm.tokenizer.save_pretrained(folder)
        else:
            tuned.save(folder)

    return Fitted(save, curve, facts, _card(settings, facts))


def _trained(
    problem: Problem,
    settings: StepDPOSettings,
    train: list[Any],
    held_out: list[Any],
    packed: bool,
) -> tuple[LocalModel, list[dict[str, Any]]]:
    """The policy and its curve, by the trainer that the settings name."""
    if settings.trainer == "trl":
        from qvlib.estimators import step_dpo_trl as trainer

        options: dict[str, Any] = {"lora_rank": settings.lora_rank}
    else:
        from qvlib.estimators import step_dpo_loop as trainer

        options = {"packed": packed}
    return trainer.train(
        problem.reference,
        train,
        held_out,
        beta=settings.beta,
        lr=settings.dpo_lr,
        epochs=settings.dpo_epochs,
        batch=settings.dpo_batch,
        rule=settings.log_prob,
        seed=problem.seed,
        schedule=settings.dpo_schedule,
        label=problem.label,
        folder=problem.scratch,
        **options,
    )


def _card(settings: StepDPOSettings, facts: dict[str, Any]) -> Card:
    dropped = facts["dropped_pairs"]
    epochs = f"{settings.dpo_epochs} epochs of {facts['pairs']} pairs"
    if dropped:
        epochs += f" ({dropped} longer than its context were dropped)"
    how = f"LoRA of rank {settings.lora_rank}" if settings.adapts else "full fine-tuning"
    if not facts.get("packed", True):
        how += ", each action in a pass of its own"
    reference = "the base without this adapter" if settings.adapts else "the base"
    return Card(
        library="peft" if settings.adapts else "transformers",
        tags=("dpo", "step-level-q-value"),
        score=(
            "Q(u, history, action) = log pi(action) - log pi_ref(action) in nats, "
            f"{settings.log_prob} over the action's tokens, end token included;\n"
            f"pi is this model, pi_ref {reference}. It ranks the actions of one state and compares "
            "no two states. It is not made to be sampled from."
        ),
        recipe=(
            f"step-level DPO, beta {settings.beta:g}, rate {settings.dpo_lr:g}, {epochs}, {how}"
        ),
    )


def load(
    folder: Path, reference: LocalModel, settings: StepDPOSettings, open_model: OpenModel
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


ESTIMATOR = Estimator(
    "step_dpo",
    StepDPOSettings,
    fit,
    load,
    policy=True,
    loss="qvlib.core.dpo:dpo_loss",
    unit="nats",
)
