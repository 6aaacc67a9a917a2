"""What the trainers of TRL share here: order, bars, silence, checkpoints that resume, LoRA."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, PeftModel
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback

from qvlib.models import training
from qvlib.models.local import quiet
from qvlib.models.saving import saving


class Silent:
    """A mixin of trainers: no lines on the console, no telemetry, no model card."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with saving(self.args.output_dir):
            super()._save_checkpoint(*args, **kwargs)


class Order(torch.utils.data.Sampler):
    """``training.order`` of each epoch: the order of the plain loop of the same name."""

    def __init__(self, size: int, seed: int, name: str) -> None:
        self.size, self.seed, self.name, self.epoch = size, seed, name, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(training.order(self.size, self.seed, self.name, self.epoch).tolist())


class Epochs(TrainerCallback):
    """Tells an order its epoch.

    Accelerate does not reach it where one of several processes resumes within an epoch.
    """

    def __init__(self, order: Order) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.order.set_epoch(state.global_step * int(args.num_train_epochs) // state.max_steps)


class Steady(TrainerCallback):
    """Gradients of float64 weights are rounded, as in the plain loop."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: torch.nn.Module, **_: Any
    ) -> None:
        training.steady(model)


class Bar(TrainerCallback):
    """One progress bar, like the plain loop's."""

    def __init__(self, label: str) -> None:
        self.label = label

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.label, unit="batch"
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


def arguments(
    folder: Path, device: torch.device, *, lr: float, epochs: int, steps: int, seed: int
) -> dict[str, Any]:
    """What the configurations of all trainers have in common.

    folder: of checkpoints, of which the last is kept, a tenth of the ``steps`` apart.
    """
    on_cpu = device.type == "cpu"
    return {
        "output_dir": str(folder),
        "learning_rate": lr,
        "num_train_epochs": epochs,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_length": None,
        "bf16": False,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": max(1, steps // 10),
        "save_total_limit": 1,
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
        "seed": seed,
    }


def rows_of_pass(longest: int, batch: int, tokens: int) -> int:
    """Rows of one pass: the most that padded hold ``tokens``, and a divisor of ``batch``.

    longest: tokens of the longest row. Passes add up to a batch; in one that is not full, at the
    end of an epoch of pairs, each pass weighs the same.
    """
    return next(
        n for n in range(batch, 0, -1) if n == 1 or (batch % n == 0 and n * longest <= tokens)
    )


def on_one_gpu(config: Any) -> Any:
    """The configuration, for one of several visible GPUs: more are a launcher's affair."""
    config._n_gpu = min(1, config.n_gpu)
    return config


def lora(rank: int) -> LoraConfig | None:
    """A LoRA on every linear layer but the output, alpha twice the rank; None for rank 0."""
    if not rank:
        return None
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def trained(trainer: Any, adapter: Path | None = None) -> PreTrainedModel:
    """The trainer's model with its LoRA merged, if it has one, and no part of the trainer left.

    adapter: the folder that the LoRA is saved to first, by the first of several processes.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        if adapter is not None and trainer.is_world_process_zero():
            with saving(adapter):
                model.save_pretrained(adapter)
        model = model.merge_and_unload()
    # The trainer's forward is bound to this model, and would be in its copies too.
    for left in ("forward", "_is_accelerate_prepared"):
        vars(model).pop(left, None)
    return model.eval().requires_grad_(True)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written whole: the trainer's state is its last file."""
    whole = [f.parent for f in folder.glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda f: int(f.name.split("-")[1]), default=None)
    return None if newest is None else str(newest)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No progress bars for writing files and no deprecation notes between the libraries."""
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
