"""Step-level DPO in a plain loop, for small models (arXiv 2409.09345; DPO: arXiv 2305.18290).

The loss, ``qvlib.core.dpo.dpo_loss``, is a pure function of four vectors of log-probabilities.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

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
    packed: bool | None = None,
    folder: str | Path | None = None,
) -> tuple[LocalModel, list[dict[str, float]]]:
    """Tune a copy of the model in full, in a plain loop; ``lm`` stays the reference.

    Learning rate: ``lr`` times ``training.rate_at``. Pairs that are longer than the model's context
    are dropped (``fitting``). A batch of more tokens than ``lm.batch_tokens`` takes several passes,
    whose gradients add up. There is no dropout, as in scoring. Returns the policy and its curve:
    ``curve_row`` at every step, and on ``held_out`` at the end of each epoch.

    packed: as ``data.packs`` says of these pairs; None = ask it.
    folder: keeps a checkpoint; a training that was killed goes on from it when called again with
        the same arguments.

    Raises:
        QvlibError: no pair fits the model's context, training diverged, or the checkpoint cannot be
            read or written.
    """
    pairs, held_out = some_fit(lm, pairs, held_out)
    policy = copy.deepcopy(lm.model).eval()
    pad = lm.end
    if packed is None:
        packed = packs(lm.model, [*pairs, *held_out], pad)

    def both(model: torch.nn.Module, rows: Sequence[PairIds]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return _both(model, rows, rule, pad, batch, lm.batch_tokens, packed)

    reference = both(lm.model, pairs)
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
                losses = _losses(
                    policy, rows, parts, theirs, ours, rule=rule, pad=pad, beta=beta, packed=packed
                )
                descend(policy, optimizer, _finite(losses, label, step, total, remedy), rates)
                values = (torch.cat(some) for some in zip(*ours, strict=True))
                curve.append(curve_row(len(curve), "train", *values, *theirs, beta))
                kept.step()
                bar.update()
            judged = sum(row["split"] == "held-out" for row in curve)
            if reference_held and judged == epoch:
                found = both(policy, held_out)
                curve.append(curve_row(len(curve), "held-out", *found, *reference_held, beta))
    must_compute(policy, pairs[0].prompt, f"{label}, after its last step", remedy)
    return lm.tuned(policy), curve


def _finite(
    losses: Iterable[torch.Tensor], label: str, step: int, total: int, remedy: str
) -> Iterator[torch.Tensor]:
    for loss in losses:
        must_be_finite(loss, f"{label}, step {step} of {total}", remedy)
        yield loss


def _losses(
    policy: torch.nn.Module,
    rows: Sequence[PairIds],
    parts: Iterable[slice],
    reference: tuple[torch.Tensor, torch.Tensor],
    seen: list[tuple[torch.Tensor, torch.Tensor]],
    *,
    rule: str,
    pad: int,
    beta: float,
    packed: bool,
) -> Iterator[torch.Tensor]:
    """A batch's mean loss in shares, one a pass; ``seen`` gets the policy's log-probabilities."""
    for part in parts:
        chosen, rejected = pair_log_probs(policy, rows[part], rule, pad, packed)
        seen.append((chosen.detach(), rejected.detach()))
        loss = dpo_loss(chosen, rejected, reference[0][part], reference[1][part], beta)
        yield loss.mean() * (len(chosen) / len(rows))


def curve_row(
    step: int,
    split: str,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float,
) -> dict[str, float]:
    """Loss, margin beta * (Q_w - Q_l) in nats, accuracy, both mean log-probabilities of a batch."""
    chosen, rejected = chosen.detach(), rejected.detach()
    gap = (chosen - ref_chosen) - (rejected - ref_rejected)
    right = (gap > 0).double() + 0.5 * (gap == 0).double()
    return {
        "step": step,
        "split": split,
        "loss": dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta).mean().item(),
        "margin": beta * gap.mean().item(),
        "accuracy": right.mean().item(),
        "log_prob_chosen": chosen.mean().item(),
        "log_prob_rejected": rejected.mean().item(),
        "pairs": len(chosen),
    }


def _both(
    model: torch.nn.Module,
    rows: Sequence[PairIds],
    rule: str,
    pad: int,
    batch: int,
    tokens: int,
    packed: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all chosen and all rejected actions, [N] each, without gradients.

    tokens: those of a pass, at most.
    """
    parts = [
        pair_log_probs(model, some[part], rule, pad, packed)
        for some in batches(rows, batch)
        for part in passes(some, tokens, packed)
    ]
    chosen, rejected = zip(*parts, strict=True)
    return torch.cat(chosen), torch.cat(rejected)
