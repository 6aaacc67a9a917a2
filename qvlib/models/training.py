"""What training loops share: order, batches, padding, the optimizer's step, checkpoints."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import display_path
from qvlib.base.seeding import generator
from qvlib.models.precision import steady

Rows = TypeVar("Rows", bound=Sequence[Any] | np.ndarray)


def steps_in_all(size: int, batch: int, epochs: int) -> int:
    """Steps of ``epochs`` epochs over ``size`` rows; the last batch of an epoch may not be full."""
    return epochs * ((size + batch - 1) // batch)


def order(size: int, seed: int, name: str, epoch: int) -> np.ndarray:
    """A permutation of ``size`` rows, derived from (seed, name, epoch)."""
    return generator(seed, name, epoch).permutation(size)


def batches(rows: Rows, size: int) -> Iterator[Rows]:
    """The rows in order, ``size`` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def padded(
    rows: Sequence[tuple[Sequence[int], Sequence[bool]]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids [B, T] padded on the right, is-action mask [B, T], attention mask [B, T].

    rows: (token ids, which of them are an action's).
    """
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad)
    on_action = torch.zeros((len(rows), width), dtype=torch.bool)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    for i, (row, actions) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        on_action[i, : len(row)] = torch.tensor(actions)
        attention[i, : len(row)] = 1
    return ids.to(device), on_action.to(device), attention.to(device)


def descend(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Iterable[torch.Tensor],
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    longest: float | None = 1.0,
) -> None:
    """One step along the gradient of the sum of ``losses``; each is used before the next is made.

    Gradients of float64 weights are ``steady``. longest: the norm that the gradient is cut to;
    None = as it is.
    """
    optimizer.zero_grad()
    for loss in losses:
        loss.backward()
    if longest is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), longest)
    steady(model)
    optimizer.step()
    if schedule is not None:
        schedule.step()


def rate_at(step: int, steps: int, schedule: str) -> float:
    """Share of the learning rate at a step: warm-up over a tenth of the steps, then ``schedule``.

    schedule: ``linear`` to zero, or ``constant``.
    """
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 1.0 if schedule == "constant" else max(0.0, (steps - step) / max(1, steps - warm_up))


def scheduled(
    optimizer: torch.optim.Optimizer, steps: int, schedule: str
) -> torch.optim.lr_scheduler.LambdaLR:
    """``rate_at`` as torch takes it."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps, schedule))


def must_be_finite(values: torch.Tensor, what: str, remedy: str) -> None:
    """Raise QvlibError where a loss, or what a trained model computes, is not finite.

    what: what is trained and how far it is; remedy: the parameters to change.
    """
    if not torch.isfinite(values).all():
        raise QvlibError(f"{what}: training diverged, its loss is not finite; {remedy}")


@torch.no_grad()
def must_compute(model: torch.nn.Module, ids: Sequence[int], what: str, remedy: str) -> None:
    """``must_be_finite`` of a trained model's logits after ``ids``: its last step has no loss."""
    row = torch.tensor([list(ids)], device=next(model.parameters()).device)
    must_be_finite(model(input_ids=row, logits_to_keep=1).logits, what, remedy)


def named(folder: str | Path, settings: dict[str, Any], *data: Sequence[Any]) -> Path:
    """A path in ``folder`` for checkpoints of a training with these settings and data alone."""
    text = repr((sorted(settings.items()), [list(rows) for rows in data]))
    return Path(folder) / f"checkpoints-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


class Checkpoint:
    """The state of a plain training loop in one file, replaced whole a tenth of the steps apart.

    path: None = nothing is kept. ``curve``: the rows of the steps that are done. The schedule must
    depend on the number of the step alone.
    """

    def __init__(
        self,
        path: Path | None,
        steps: int,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self._path, self._every = path, max(1, steps // 10)
        self._model, self._optimizer, self._schedule = model, optimizer, schedule
        self.curve: list[dict[str, Any]] = []
        self.done = 0
        if path is not None and path.is_file():
            self._resume(path)

    def step(self) -> None:
        """Count a step, whose row is in ``curve``, and write the file where it is due."""
        self.done += 1
        if self._path is None or self.done % self._every:
            return
        state = {
            "done": self.done,
            "curve": self.curve,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        buffer = io.BytesIO()  # torch tells of a full disk in words of its own
        torch.save(state, buffer)
        write_atomic(self._path, buffer.getbuffer())

    def _resume(self, path: Path) -> None:
        device = next(self._model.parameters()).device
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            self._model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.done, self.curve = state["done"], state["curve"]
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.PickleError):
            raise QvlibError(
                f"{display_path(path)}: no checkpoint of this training can be read; delete it to "
                "train from the start"
            ) from None
        self._schedule.last_epoch = self.done
