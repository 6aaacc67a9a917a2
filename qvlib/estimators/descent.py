"""The training loop that heads and OREO share: what is compared in batches, a row a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from qvlib.estimators.estimator import Problem
from qvlib.models.training import (
    Checkpoint,
    batches,
    descend,
    named,
    order,
    scheduled,
    steps_in_all,
)

Shares = Callable[[Sequence[Any], list[float], str], Iterable[torch.Tensor]]
"""(batch, where the values go, what is trained and how far it is) -> its loss in shares."""


def row(
    step: int, split: str, loss: float | None, accuracy: float | None, pairs: int
) -> dict[str, Any]:
    """A row of a training curve."""
    return {"step": step, "split": split, "loss": loss, "accuracy": accuracy, "pairs": pairs}


def descended(
    problem: Problem,
    compared: Sequence[Any],
    trained: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    shares: Shares,
    *,
    epochs: int,
    batch: int,
    stream: str,
    known_by: Mapping[str, Any],
    after: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Train in place, resuming from a checkpoint; returns the curve, a row a step.

    trained: all that checkpoints hold. stream: names the random order of each epoch. known_by: what
    tells this training from others with the same data and seed. after: called after each step.

    Raises:
        QvlibError: what ``shares`` raises, or a checkpoint cannot be read or written.
    """
    total = steps_in_all(len(compared), batch, epochs)
    rates = scheduled(optimizer, total, "linear")
    path = named(Path(problem.scratch), {**known_by, "seed": problem.seed}, compared)
    kept = Checkpoint(path, total, trained, optimizer, rates)
    step = 0
    with tqdm(total=total, initial=kept.done, desc=problem.label, unit="batch") as bar:
        for epoch in range(epochs):
            drawn = order(len(compared), problem.seed, stream, epoch)
            for places in batches(drawn, batch):
                step += 1
                if step <= kept.done:
                    continue
                some, seen = [compared[i] for i in places], list[float]()
                what = f"{problem.label}, step {step} of {total}"
                descend(trained, optimizer, shares(some, seen, what), rates)
                if after is not None:
                    after()
                kept.curve.append(row(len(kept.curve), "train", sum(seen), None, len(some)))
                kept.step()
                bar.update()
    return kept.curve
