"""Step-level DPO with TRL's ``DPOTrainer``: LoRA and several processes, for large models.

Why two trainers: on a CPU, with 300 pairs of about 70 tokens and a model of 0.86 M parameters, TRL
took 1.7 times the seconds of ``step_dpo_loop.train`` (``qvlib bench trainers``), besides 4 s of
imports: it keeps books and checkpoints, and off the GPU it takes the logits of every position, not
of the actions alone. For a model of a billion parameters that is small, and the loop has no LoRA
and no second process.

Both take the same batches in the same order with the same optimizer and schedule, so that full
fine-tuning gives the same curve to rounding (``tests/test_dpo.py``). TRL takes the logarithms of
probabilities in float32 whatever the model's precision.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import rank
from qvlib.estimators.data import PairIds, some_fit
from qvlib.estimators.step_dpo_loop import curve_row
from qvlib.models.local import LocalModel
from qvlib.models.trainers import (
    Bar,
    Epochs,
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
from qvlib.models.training import must_be_finite, must_compute, named, scheduled, steps_in_all

LOSS = {"sum": "sigmoid", "mean": "sigmoid_norm"}  # TRL's names
CURVE = "curve/"


def train(
    lm: LocalModel,
    pairs: Sequence[PairIds],
    held_out: Sequence[PairIds],
    *,
    beta: float,
    lr: float,
    epochs: int,
    batch: int,
    rule: str,
    seed: int,
    schedule: str = "linear",
    label: str = "DPO",
    lora_rank: int = 0,
    folder: str | Path,
) -> tuple[LocalModel, list[dict[str, float]]]:
    """Tune a copy of the model with TRL; the contract of ``step_dpo_loop.train``.

    lora_rank: 0 tunes all weights; else a LoRA of this rank (alpha twice the rank) on every linear
        layer but the output, saved as ``folder/adapter`` and merged into the policy that is
        returned.
    folder: checkpoints; a training that was killed goes on from its last whole one when called
        again with the same arguments.

    The reference's log-probabilities are computed once, before the first step. Pairs that are
    longer than the model's context are dropped (``data.fitting``); nothing is truncated.

    Where a launcher started several processes (``processes.rank``), each takes its share of every
    batch and calls this with the same arguments: the result is the same in each, and the first
    alone writes, but for the state of each one's generator in a checkpoint. A last batch of an
    epoch that is not full is filled up with pairs of the epoch's beginning then.

    Raises:
        QvlibError: no pair fits the model's context, the processes cannot share a batch evenly,
            training diverged, or a checkpoint cannot be written.
    """
    folder = Path(folder)
    pairs, held_out = some_fit(lm, pairs, held_out)
    settings = {
        "beta": beta,
        "lr": lr,
        "epochs": epochs,
        "batch": batch,
        "rule": rule,
        "seed": seed,
        "schedule": schedule,
        "lora_rank": lora_rank,
    }
    work = named(folder, settings, pairs, held_out)
    checkpoint = last_checkpoint(work)
    with quietly():
        trainer = make_trainer(lm, pairs, held_out, folder=work, label=label, **settings)
        trainer.train(resume_from_checkpoint=checkpoint)
    model = trained(trainer, folder / "adapter")
    must_compute(model, pairs[0].prompt, f"{label}, after its last step", trainer.remedy)
    curve = [
        {k.removeprefix(CURVE): v for k, v in log.items() if k.startswith(CURVE)}
        for log in trainer.state.log_history
        if CURVE + "loss" in log
    ]
    curve = [{"step": step, **row} for step, row in enumerate(curve)]
    return lm.tuned(model.to(lm.model.device)), curve


def make_trainer(
    lm: LocalModel,
    pairs: Sequence[PairIds],
    held_out: Sequence[PairIds],
    *,
    beta: float,
    lr: float,
    epochs: int,
    batch: int,
    rule: str,
    seed: int,
    schedule: str,
    lora_rank: int,
    folder: Path,
    label: str,
) -> StepDPO:
    """The trainer of ``train``, ready to start."""
    _, ranks = rank()
    if batch % ranks:
        raise QvlibError(
            f"batches of {batch} pairs cannot be shared evenly by {ranks} processes; set dpo_batch "
            "to a multiple"
        )
    steps = steps_in_all(len(pairs), batch, epochs)
    longest = max(row.longest for row in [*pairs, *held_out])
    together = rows_of_pass(2 * longest, batch // ranks, lm.batch_tokens)  # in each process
    common = arguments(folder, lm.model.device, lr=lr, epochs=epochs, steps=steps, seed=seed)
    config = DPOConfig(
        **common,
        beta=beta,
        loss_type=[LOSS[rule]],
        router_aux_loss_coef=0.0,  # else a mixture of experts is trained on more than the loss
        per_device_train_batch_size=together,
        gradient_accumulation_steps=batch // ranks // together,
        per_device_eval_batch_size=together,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        eval_strategy="epoch" if held_out else "no",
        ddp_find_unused_parameters=False if ranks > 1 else None,
    )
    tokenizer = copy.deepcopy(lm.tokenizer)  # TRL may give it a padding token
    return StepDPO(
        copy.deepcopy(lm.model),
        args=on_one_gpu(config),  # TRL refuses DataParallel
        train_dataset=_dataset(pairs),
        eval_dataset=_dataset(held_out) if held_out else None,
        processing_class=tokenizer,
        peft_config=lora(lora_rank),
        callbacks=[Bar(label), Steady()],
        rule=rule,
        schedule=schedule,
        label=label,
    )


class StepDPO(Silent, DPOTrainer):
    """``DPOTrainer`` on our token ids, in our order, with our curve; its loss and reference."""

    def __init__(self, *args: Any, rule: str, schedule: str, label: str, **kwargs: Any) -> None:
        self._rule, self._schedule, self._label = rule, schedule, label
        self._split = "train"
        self._seen: list[tuple[torch.Tensor, ...]] = []
        super().__init__(*args, **kwargs)
        self.remedy = f"lower dpo_lr (now {self.args.learning_rate:g}) or beta"

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset  # token ids already

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """TRL's reference, kept in memory.

        TRL hands it over in a file that the other processes look for elsewhere.
        """
        loader = self.accelerator.prepare(
            torch.utils.data.DataLoader(dataset, batch_size, collate_fn=self.data_collator)
        )
        parts = [
            self.accelerator.gather_for_metrics(self.compute_ref_log_probs(self.model, batch))
            for batch in loader
        ]
        for column, values in zip(
            ("ref_chosen_logps", "ref_rejected_logps"), zip(*parts, strict=True), strict=True
        ):
            dataset = dataset.add_column(column, torch.cat(values).cpu().numpy())
        return dataset

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Order:
        order = Order(len(train_dataset or self.train_dataset), self.args.seed, "dpo")
        self.add_callback(Epochs(order))
        return order

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of ``step_dpo_loop.train``."""
        self.lr_scheduler = scheduled(
            optimizer or self.optimizer, num_training_steps, self._schedule
        )
        return self.lr_scheduler

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss; the log-probabilities it is made of are kept for the curve.

        Without any dropout, as in scoring: TRL leaves on what is a function, not a layer.
        """
        self._split = "train" if model.training else "held-out"
        model.eval()

        def watched(**arguments: Any) -> Any:
            out = model(**arguments)
            self._seen.append(
                self.accelerator.gather_for_metrics(self._four(out.log_probs.detach(), inputs))
            )
            return out

        found = super().compute_loss(watched, inputs, return_outputs, num_items_in_batch)
        done = f"{self._label}, step {self.state.global_step} of {self.state.max_steps}"
        must_be_finite(found[0] if return_outputs else found, done, self.remedy)
        return found

    def _four(
        self, token_log_probs: torch.Tensor, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, ...]:
        """Log-probabilities of chosen and rejected: policy's, then reference's, [B] each."""
        length = (
            inputs["completion_mask"].sum(1)
            if self._rule == "mean"
            else torch.ones_like(inputs["input_ids"][:, 0])
        )
        chosen, rejected = (token_log_probs.sum(1) / length).chunk(2)
        theirs = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]) / length
        return chosen, rejected, *theirs.chunk(2)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the curve's row; checkpoints save the log history, so the curve survives a kill."""
        if self._seen:
            four = (torch.cat(t) for t in zip(*self._seen, strict=True))
            row = curve_row(0, self._split, *four, self.beta)
            logs |= {CURVE + k: v for k, v in row.items() if k != "step"}
            self._seen.clear()
        super().log(logs, start_time)


def _dataset(rows: Sequence[PairIds]) -> Dataset:
    return Dataset.from_dict(
        {f"{k}_ids": [list(getattr(r, k)) for r in rows] for k in ("prompt", "chosen", "rejected")}
    )
