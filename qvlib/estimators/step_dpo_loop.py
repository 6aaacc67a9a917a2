"""Step-level DPO in a plain loop, for small models (arXiv 2409.09345; DPO: arXiv 2305.18290).

The loss, ``qvlib.core.dpo.dpo_loss`` or another, is a pure function of four vectors of
log-probabilities. What is compared may also be more than one action against one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from qvlib.core.dpo import dpo_loss
from qvlib.estimators.data import PairIds, packs, pair_log_probs, passes, some_fit
from qvlib.models.local import LocalModel
from qvlib.models.training import (
    Checkpoint,
    batches,
    descend,
    must_be_finite,
    must_compute,
    named,
    order,
    scheduled,
    steps_in_all,
)

Loss = Callable[
    [Sequence[Any], torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor
]
"""(rows, log pi of what is chosen and of what is rejected, the reference's of both) -> [B]."""
LogProbs = Callable[..., tuple[torch.Tensor, torch.Tensor]]
"""As ``data.pair_log_probs``."""


def train(
    lm: LocalModel,
    pairs: Sequence[Any],
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
    packed: bool | None = None,
    folder: str | Path | None = None,
    loss: Loss | None = None,
    log_probs: LogProbs = pair_log_probs,
    terms: Mapping[str, Any] | None = None,
) -> tuple[LocalModel, list[dict[str, float]]]:
    """Tune a copy of the model in full, in a plain loop; ``lm`` stays the reference.

    Learning rate: ``lr`` times ``training.rate_at``. Pairs that are longer than the model's context
    are dropped (``fitting``). A batch of more tokens than ``lm.batch_tokens`` takes several passes,
    whose gradients add up. There is no dropout, as in scoring. Returns the policy and its curve:
    ``curve_row`` at every step, and on ``held_out`` at the end of each epoch.

    packed: as ``data.packs`` says of these pairs; None = ask it.
    folder: keeps a checkpoint; a training that was killed goes on from it when called again with
        the same arguments.
    loss: another than ``dpo_loss``; terms: its settings beside beta, to know the checkpoint by.
    log_probs: of the rows of ``pairs``, where they are no ``PairIds`` but others with their
        ``prompt``, ``longest`` and ``sequences``, which are not packed. ``held_out`` are pairs.

    Raises:
        QvlibError: no pair fits the model's context, training diverged, or the checkpoint cannot be
            read or written.
    """
    pairs, held_out = some_fit(lm, pairs, held_out)
    policy = copy.deepcopy(lm.model).eval()
    pad = lm.end
    if packed is None:
        packed = packs(lm.model, [*pairs, *held_out], pad)
    if loss is None:
        loss = partial(_dpo, beta=beta)

    def both(
        model: torch.nn.Module, rows: Sequence[Any], of: LogProbs = pair_log_probs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return _both(model, rows, rule, pad, batch, lm.batch_tokens, packed, of)

    reference = both(lm.model, pairs, log_probs)
    reference_held = both(lm.model, held_out) if held_out else None
    total = steps_in_all(len(pairs), batch, epochs)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, weight_decay=0.0, fused=True)
    rates = scheduled(optimizer, total, schedule)
    settings = {
        "beta": beta,
        "lr": lr,
        "epochs": epochs,
        "batch": batch,
        "rule": rule,
        "seed": seed,
        "schedule": schedule,
        **(terms or {}),
    }
    path = None if folder is None else named(folder, settings, pairs, held_out)
    kept = Checkpoint(path, total, policy, optimizer, rates)
    curve: list[dict[str, float]] = kept.curve
    remedy = f"lower dpo_lr (now {lr:g}) or beta"
    with tqdm(total=total, initial=kept.done, desc=label, unit="batch") as bar:
        for epoch in range(epochs):
            first = epoch * steps_in_all(len(pairs), batch, 1)
            drawn_in_order = batches(order(len(pairs), seed, "dpo", epoch), batch)
            for step, drawn in enumerate(drawn_in_order, start=first):
                if step < kept.done:
                    continue
                rows, ours = [pairs[i] for i in drawn], []
                theirs = reference[0][drawn], reference[1][drawn]
                parts = passes(rows, lm.batch_tokens, packed)
                compute = partial(log_probs, rule=rule, pad=pad, packed=packed)
                losses = _losses(policy, rows, parts, theirs, ours, compute, loss)
                descend(policy, optimizer, _finite(losses, label, step, total, remedy), rates)
                values = [torch.cat(some) for some in zip(*ours, strict=True)]
                found = loss(rows, *values, *theirs)
                curve.append(curve_row(len(curve), "train", *values, *theirs, beta, found))
                kept.step()
                bar.update()
            judged = sum(row["split"] == "held-out" for row in curve)
            if reference_held and judged == epoch:
                values = both(policy, held_out)
                found = loss(held_out, *values, *reference_held)
                curve.append(
                    curve_row(len(curve), "held-out", *values, *reference_held, beta, found)
                )
    must_compute(policy, pairs[0].prompt, f"{label}, after its last step", remedy)
    return lm.tuned(policy), curve


def _finite(
    losses: Iterable[torch.Tensor], label: str, step: int, total: int, remedy: str
) -> Iterator[torch.Tensor]:
    for loss in losses:
        must_be_finite(loss, f"{label}, step {step} of {total}", remedy)
        yield loss


def _dpo(rows: Sequence[Any], *four: torch.Tensor, beta: float) -> torch.Tensor:
    return dpo_loss(*four, beta)


def _losses(
    policy: torch.nn.Module,
    rows: Sequence[Any],
    parts: Iterable[slice],
    reference: tuple[torch.Tensor, torch.Tensor],
    seen: list[tuple[torch.Tensor, torch.Tensor]],
    log_probs: LogProbs,
    loss: Loss,
) -> Iterator[torch.Tensor]:
    """A batch's mean loss in shares, one a pass; ``seen`` gets the policy's log-probabilities."""
    for part in parts:
        chosen, rejected = log_probs(policy, rows[part])
        seen.append((chosen.detach(), rejected.detach()))
        losses = loss(rows[part], chosen, rejected, reference[0][part], reference[1][part])
        yield losses.mean() * (len(chosen) / len(rows))


def curve_row(
    step: int,
    split: str,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float,
    losses: torch.Tensor | None = None,
) -> dict[str, float]:
    """Loss, margin beta * (Q_w - Q_l) in nats, accuracy, both mean log-probabilities of a batch.

    losses: [B]; None = those of DPO.
    """
    if losses is None:
        losses = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)
    chosen, rejected = chosen.detach(), rejected.detach()
    gap = (chosen - ref_chosen) - (rejected - ref_rejected)
    right = (gap > 0).double() + 0.5 * (gap == 0).double()
    return {
        "step": step,
        "split": split,
        "loss": losses.mean().item(),
        "margin": beta * gap.mean().item(),
        "accuracy": right.mean().item(),
        "log_prob_chosen": chosen.mean().item(),
        "log_prob_rejected": rejected.mean().item(),
        "pairs": len(chosen),
    }


def _both(
    model: torch.nn.Module,
    rows: Sequence[Any],
    rule: str,
    pad: int,
    batch: int,
    tokens: int,
    packed: bool = True,
    log_probs: LogProbs = pair_log_probs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all chosen and all rejected actions, [N] each, without gradients.

    tokens: those of a pass, at most.
    """
    parts = [
        log_probs(model, some[part], rule, pad, packed)
        for some in batches(rows, batch)
        for part in passes(some, tokens, packed)
    ]
    chosen, rejected = zip(*parts, strict=True)
    return torch.cat(chosen), torch.cat(rejected)
