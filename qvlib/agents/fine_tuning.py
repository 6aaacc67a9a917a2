"""Supervised fine-tuning of an agent on demonstrations, before any search (as ETO, arXiv 2403.02502, and QLASS, 2502.02584, do).

The same code does rejection-sampling fine-tuning (RFT): its demonstrations are then the best trajectories of the
search. The loss is on the actions alone. A LoRA is merged, so that the tuned agent is a model like any other and can be
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
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from qvlib.base.errors import QvlibError
from qvlib.core.types import State
from qvlib.estimators.step_dpo_trl import Bar, Order, checkpoints, last_checkpoint, lora, quietly
from qvlib.models.local import Ids, LocalModel

IGNORED = -100  # the label of a token that is not learnt, as everywhere in transformers


@dataclass(frozen=True, slots=True)
class Transcript:
    """Token ids of an episode, and which of them are the agent's own: [T] each."""

    ids: Ids
    own: tuple[bool, ...]


def transcripts(lm: LocalModel, decisions: Iterable[tuple[State, str]]) -> Iterator[Transcript]:
    """Decisions (state, action) in the order they were made, as few rows: where a prompt starts with all that the
    decision before it read and wrote, they share a row, and each token is computed once."""
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
) -> tuple[LocalModel, list[dict[str, float]], int]:
    """(the tuned model, its curve, transcripts too long for the model and left out); ``lm`` is not changed.

    lr falls linearly to 0 after a tenth of warm-up; batch: transcripts. lora_rank 0 tunes all weights. The curve has
    ``step`` and ``loss`` (nats a token of the agent's own). ``folder`` keeps checkpoints: a training that was killed
    goes on from its last one.

    Raises:
        QvlibError: no transcript fits the model's context.
    """
    fit = [row for row in rows if len(row.ids) <= lm.context]
    if not fit:
        raise QvlibError(
            f"no demonstration fits the model's context of {lm.context} tokens; take a model with a longer one"
        )
    settings = {"lr": lr, "epochs": epochs, "batch": batch, "seed": seed, "lora_rank": lora_rank}
    work = checkpoints(Path(folder), settings, fit)
    on_cpu = lm.model.device.type == "cpu"
    steps = epochs * ((len(fit) + batch - 1) // batch)
    checkpoint = last_checkpoint(work)
    with quietly():
        config = SFTConfig(
            output_dir=str(work),
            learning_rate=lr,
            lr_scheduler_type="linear",
            warmup_steps=max(1, steps // 10),
            num_train_epochs=epochs,
            per_device_train_batch_size=1 if on_cpu else batch,
            gradient_accumulation_steps=batch
            if on_cpu
            else 1,  # one by one there is no padding, which a CPU pays for as for text
            weight_decay=0.0,
            max_grad_norm=1.0,
            max_length=None,
            gradient_checkpointing=not on_cpu,
            bf16=False,
            use_cpu=on_cpu,
            dataloader_pin_memory=not on_cpu,
            logging_strategy="steps",
            logging_steps=1,
            save_strategy="steps",
            save_steps=max(1, steps // 10),
            save_total_limit=1,
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        config._n_gpu = min(
            1, config.n_gpu
        )  # several visible GPUs: one is enough, more are accelerate's
        trainer = _Trainer(
            copy.deepcopy(lm.model),
            args=config,
            train_dataset=_dataset(fit),
            processing_class=copy.deepcopy(lm.tokenizer),
            peft_config=lora(lora_rank),
            callbacks=[Bar(label)],
        )
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if lora_rank:
        model = model.merge_and_unload()
    for left in (
        "forward",
        "_is_accelerate_prepared",
    ):  # the trainer's forward is bound to this model, in its copies too
        vars(model).pop(left, None)
    curve = [
        {"step": step, "loss": log["loss"]}
        for step, log in enumerate(x for x in trainer.state.log_history if "loss" in x)
    ]
    return lm.tuned(model.to(lm.model.device)), curve, len(rows) - len(fit)


class _Trainer(SFTTrainer):
    """``SFTTrainer`` on our token ids, in our order, with its loss from the logits of learnt tokens alone.

    They are one in fifteen, and the logits of a large vocabulary cost more than the model on a CPU, with the metrics that
    TRL makes of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)

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
        return (loss, out) if return_outputs else loss

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass

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
