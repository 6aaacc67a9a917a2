"""What training loops share: order, batches, padding, the optimizer's step and its rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from qvlib.base.seeding import generator

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

    longest: the norm that the gradient is cut to; None = as it is.
    """
    optimizer.zero_grad()
    for loss in losses:
        loss.backward()
    if longest is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), longest)
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
