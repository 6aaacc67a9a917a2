"""A head on pairs with TRL's ``RewardTrainer``: its loss and model, our batches and schedule.

TRL trains a model for sequence classification: the body of the language model with a score on the
last token that is no padding. Here that is the last token of an action, the end token left out,
which is where heads of ``head_loop`` read. So both give the same curve, to rounding
(``tests/test_value_estimators.py``). Each action is a row with a prompt of its own, which costs
about twice the tokens of the loop's packed rows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from trl import RewardConfig, RewardTrainer

from qvlib.base.errors import QvlibError
from qvlib.estimators import heads
from qvlib.estimators.data import PairIds
from qvlib.estimators.descent import row
from qvlib.estimators.estimator import Problem
from qvlib.estimators.head_settings import HeadSettings
from qvlib.models.heads import Head
from qvlib.models.local import LocalModel
from qvlib.models.trainers import (
    Bar,
    Epochs,
    Order,
    Silent,
    Steady,
    arguments,
    last_checkpoint,
    on_one_gpu,
    quietly,
    rows_of_pass,
    trained,
)
from qvlib.models.training import must_be_finite, named, scheduled, steps_in_all

LOSS, PAIRS = "curve/loss", "curve/pairs"


def train(
    problem: Problem, pairs: Sequence[PairIds], settings: HeadSettings
) -> tuple[Head, LocalModel, list[dict[str, Any]]]:
    """(the head, the model that was tuned below it, the curve); checkpoints are in ``scratch``.

    Raises:
        QvlibError: there is no sequence classification for this kind of model, training diverged,
            or a checkpoint cannot be written.
    """
    lm = problem.reference
    work = named(Path(problem.scratch), settings.model_dump() | {"seed": problem.seed}, pairs)
    with quietly():
        trainer = make_trainer(problem, pairs, settings, work)
        trainer.train(resume_from_checkpoint=last_checkpoint(work))
    model = trained(trainer)
    backbone = copy.deepcopy(lm.model)
    backbone.base_model.load_state_dict(model.base_model.state_dict())
    logs = [log for log in trainer.state.log_history if LOSS in log]
    curve = [row(step, "train", log[LOSS], None, log[PAIRS]) for step, log in enumerate(logs)]
    return model.score, lm.tuned(backbone), curve


def make_trainer(
    problem: Problem, pairs: Sequence[PairIds], settings: HeadSettings, folder: Path
) -> PairTrainer:
    """The trainer of ``train``, ready to start."""
    lm, batch = problem.reference, settings.fit_batch
    steps = steps_in_all(len(pairs), batch, settings.fit_epochs)
    together = rows_of_pass(2 * max(row.longest for row in pairs), batch, lm.batch_tokens)
    common = arguments(
        folder,
        lm.model.device,
        lr=settings.fit_lr,
        epochs=settings.fit_epochs,
        steps=steps,
        seed=problem.seed,
    )
    config = RewardConfig(
        **common,
        per_device_train_batch_size=together,
        gradient_accumulation_steps=batch // together,
        gradient_checkpointing=False,
        eval_strategy="no",
        pad_token=lm.tokenizer.convert_ids_to_tokens(lm.end),  # no action has it within
    )
    model = classifier(lm, heads.new_head(lm, settings, 1, problem.seed))
    body = [p for name, p in model.named_parameters() if not name.startswith("score.")]
    head = {"params": list(model.score.parameters()), "lr": settings.head_lr or settings.fit_lr}
    optimizer = torch.optim.AdamW(
        [head, {"params": body}], lr=settings.fit_lr, weight_decay=0.0, fused=True
    )
    return PairTrainer(
        model,
        args=on_one_gpu(config),  # TRL refuses DataParallel
        train_dataset=Dataset.from_dict(
            {
                f"{which}_ids": [list(row.prompt + getattr(row, which)[:-1]) for row in pairs]
                for which in ("chosen", "rejected")
            }
        ),
        processing_class=copy.deepcopy(lm.tokenizer),  # TRL gives it a padding token
        optimizers=(optimizer, scheduled(optimizer, steps, "linear")),
        callbacks=[Bar(problem.label), Steady()],
        label=problem.label,
    )


def classifier(lm: LocalModel, head: Head) -> PreTrainedModel:
    """The model for sequence classification with the weights of ``lm``, and ``head`` as its score.

    Raises:
        QvlibError: there is none for this kind of model.
    """
    config = copy.deepcopy(lm.model.config)
    config.num_labels = 1
    try:
        model = AutoModelForSequenceClassification.from_config(config, dtype=lm.model.dtype)
    except ValueError:
        raise QvlibError(
            f"{type(lm.model).__name__} has no model for sequence classification; set trainer: loop"
        ) from None
    model.base_model.load_state_dict(lm.model.base_model.state_dict())
    model.score = head
    return model.to(lm.model.device)


class PairTrainer(Silent, RewardTrainer):
    """``RewardTrainer`` in our order, with our curve; its loss."""

    def __init__(self, *args: Any, label: str, **kwargs: Any) -> None:
        self._label, self._seen = label, list[tuple[float, int]]()
        super().__init__(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Order:
        order = Order(len(train_dataset or self.train_dataset), self.args.seed, "head")
        self.add_callback(Epochs(order))
        return order

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, without any dropout, as in scoring."""
        model.eval()
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        done = f"{self._label}, step {self.state.global_step} of {self.state.max_steps}"
        must_be_finite(loss, done, f"lower fit_lr (now {self.args.learning_rate:g})")
        self._seen.append((loss.item(), len(inputs["input_ids"]) // 2))
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the curve's row; checkpoints save the log history, so the curve survives a kill."""
        if self._seen:
            logs |= {
                LOSS: sum(loss for loss, _ in self._seen) / len(self._seen),
                PAIRS: sum(count for _, count in self._seen),
            }
            self._seen.clear()
        super().log(logs, start_time)
