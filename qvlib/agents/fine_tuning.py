"""Supervised fine-tuning of an agent on demonstrations, before any search.

So do ETO (arXiv 2403.02502) and QLASS (arXiv 2502.02584). The same code does rejection-sampling
fine-tuning (RFT): its demonstrations are then the best trajectories of the search. The loss is on
the actions alone. A LoRA is merged, so that the tuned agent is a model like any other and can be
the reference of a Q model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional as F
from trl import SFTConfig, SFTTrainer

from qvlib.base.errors import QvlibError
from qvlib.core.types import State
from qvlib.models.local import Ids, LocalModel
from qvlib.models.trainers import (
    Bar,
    Order,
    Silent,
    Steady,
    arguments,
    last_checkpoint,
    lora,
    on_one_gpu,
    quietly,
    rows_of_pass,
    trained,
)
from qvlib.models.training import must_be_finite, must_compute, named, steps_in_all

# Tokens of a pass that keeps little for its backward pass (gradient checkpointing), relative to one
# that keeps all.
CHECKPOINTED = 4
IGNORED = -100  # the label of a token that is not learnt, as everywhere in transformers


@dataclass(frozen=True, slots=True)
class Transcript:
    """Token ids of an episode, and which of them are the agent's own: [T] each."""

    ids: Ids
    own: tuple[bool, ...]


def transcripts(lm: LocalModel, decisions: Iterable[tuple[State, str]]) -> Iterator[Transcript]:
    """Decisions (state, action) in the order they were made, as few rows.

    Where a prompt starts with all that the decision before it read and wrote, they share a row, and
    each token is computed once.
    """
    ids: Ids = ()
    own: tuple[bool, ...] = ()
    for state, action in decisions:
        prompt, tokens = lm.prompt(state)
        if ids and tokens[: len(ids)] != ids:
            yield Transcript(ids, own)
            ids, own = (), ()
        reply = lm.action_ids(prompt, action)
        own += (False,) * (len(tokens) - len(ids)) + (True,) * len(reply)
        ids = tokens + reply
    if ids:
        yield Transcript(ids, own)


def fine_tune(
    lm: LocalModel,
    rows: Sequence[Transcript],
    *,
    lr: float,
    epochs: int,
    batch: int,
    seed: int,
    lora_rank: int,
    folder: str | Path,
    label: str = "warm start",
    rate: str = "warm_lr",
) -> tuple[LocalModel, list[dict[str, float]], int]:
    """(the tuned model, its curve, transcripts too long for the model and left out).

    ``lm`` is not changed. lr falls linearly to 0 after a tenth of warm-up; batch: transcripts.
    lora_rank 0 tunes all weights. The curve has ``step`` and ``loss`` (nats a token of the agent's
    own). ``folder`` keeps checkpoints: a training that was killed goes on from its last one. A
    batch of more tokens than ``CHECKPOINTED`` times ``lm.batch_tokens`` takes several passes.
    rate: the parameter that ``lr`` comes from.

    Raises:
        QvlibError: no transcript fits the model's context, training diverged, or a checkpoint
            cannot be written.
    """
    fit = [row for row in rows if len(row.ids) <= lm.context]
    if not fit:
        raise QvlibError(
            f"no demonstration fits the model's context of {lm.context} tokens; take a model with "
            "a longer one"
        )
    settings = {"lr": lr, "epochs": epochs, "batch": batch, "seed": seed, "lora_rank": lora_rank}
    work = named(folder, settings, fit)
    on_cpu = lm.model.device.type == "cpu"
    steps = steps_in_all(len(fit), batch, epochs)
    checkpoint = last_checkpoint(work)
    # One by one there is no padding, which a CPU pays for as for text.
    longest = max(len(row.ids) for row in fit)
    together = 1 if on_cpu else rows_of_pass(longest, batch, CHECKPOINTED * lm.batch_tokens)
    with quietly():
        config = SFTConfig(
            **arguments(work, lm.model.device, lr=lr, epochs=epochs, steps=steps, seed=seed),
            lr_scheduler_type="linear",
            warmup_steps=max(1, steps // 10) if steps > 1 else 0,  # its first step is of rate 0
            per_device_train_batch_size=together,
            gradient_accumulation_steps=batch // together,
            gradient_checkpointing=not on_cpu,
        )
        trainer = _Trainer(
            copy.deepcopy(lm.model),
            args=on_one_gpu(config),
            train_dataset=_dataset(fit),
            processing_class=copy.deepcopy(lm.tokenizer),
            peft_config=lora(lora_rank),
            callbacks=[Bar(label), Steady()],
            label=label,
            remedy=f"lower {rate} (now {lr:g})",
        )
        trainer.train(resume_from_checkpoint=checkpoint)
    model = trained(trainer)
    must_compute(model, fit[0].ids, f"{label}, after its last step", trainer.remedy)
    curve = [
        {"step": step, "loss": log["loss"]}
        for step, log in enumerate(x for x in trainer.state.log_history if "loss" in x)
    ]
    return lm.tuned(model.to(lm.model.device)), curve, len(rows) - len(fit)


class _Trainer(Silent, SFTTrainer):
    """``SFTTrainer`` on our token ids, in our order, the loss on learnt tokens' logits alone.

    They are one in fifteen, and the logits of a large vocabulary cost more than the model on a
    CPU, with the metrics that TRL makes of them.
    """

    def __init__(self, *args: Any, label: str, remedy: str, **kwargs: Any) -> None:
        self._label, self.remedy = label, remedy
        super().__init__(*args, **kwargs)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Mean negative log-likelihood of the learnt tokens, nats."""
        targets = inputs["labels"][:, 1:]
        learnt = (targets != IGNORED).any(0).nonzero()[:, 0]
        out = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            logits_to_keep=learnt,
        )
        targets = targets[:, learnt]
        total = F.cross_entropy(
            out.logits.float().flatten(0, 1),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        loss = total / (
            (targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        )
        done = f"{self._label}, step {self.state.global_step} of {self.state.max_steps}"
        must_be_finite(loss, done, self.remedy)
        return (loss, out) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Order:
        return Order(len(train_dataset or self.train_dataset), self.args.seed, "warm start")


def _dataset(rows: Sequence[Transcript]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [list(row.ids) for row in rows],
            "labels": [
                [i if own else IGNORED for i, own in zip(row.ids, row.own, strict=True)]
                for row in rows
            ],
        }
    )
