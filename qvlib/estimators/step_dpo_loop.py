"""Step-level DPO in a plain loop, for small models (arXiv 2409.09345; DPO: arXiv 2305.18290).

The loss, ``qvlib.core.dpo.dpo_loss``, is a pure function of four vectors of log-probabilities.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence

import torch
from tqdm.auto import tqdm

from qvlib.core.dpo import dpo_loss
from qvlib.estimators.data import PairIds, pair_log_probs, passes, some_fit
from qvlib.models.local import LocalModel
from qvlib.models.training import batches, descend, order, scheduled, steps_in_all


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
) -> tuple[LocalModel, list[dict[str, float]]]:
    """Tune a copy of the model in full, in a plain loop; ``lm`` stays the reference.

    Learning rate: ``lr`` times ``training.rate_at``. Pairs that are longer than the model's context
    are dropped (``fitting``). A batch of more tokens than ``lm.batch_tokens`` takes several passes,
    whose gradients add up. Returns the policy and its curve: ``curve_row`` at every step, and on
    ``held_out`` at the end of each epoch.

    Raises:
        QvlibError: no pair fits the model's context.
    """
    pairs, held_out = some_fit(lm, pairs, held_out)
    policy = copy.deepcopy(lm.model).train()
    pad = lm.end
    with torch.no_grad():
        reference = _both(lm.model, pairs, rule, pad, batch)
        reference_held = _both(lm.model, held_out, rule, pad, batch) if held_out else None
    total = steps_in_all(len(pairs), batch, epochs)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, weight_decay=0.0, fused=True)
    rates = scheduled(optimizer, total, schedule)
    curve: list[dict[str, float]] = []
    with tqdm(total=total, desc=label, unit="batch") as bar:
        for epoch in range(epochs):
            for drawn in batches(order(len(pairs), seed, "dpo", epoch), batch):
                rows, ours = [pairs[i] for i in drawn], []
                theirs = reference[0][drawn], reference[1][drawn]
                parts = passes(rows, lm.batch_tokens)
                losses = _losses(policy, rows, parts, theirs, ours, rule=rule, pad=pad, beta=beta)
                descend(policy, optimizer, losses, rates)
                both = (torch.cat(values) for values in zip(*ours, strict=True))
                curve.append(curve_row(len(curve), "train", *both, *theirs, beta))
                bar.update()
            if reference_held:
                policy.eval()
                with torch.no_grad():
                    both = _both(policy, held_out, rule, pad, batch)
                curve.append(curve_row(len(curve), "held-out", *both, *reference_held, beta))
                policy.train()
    return lm.tuned(policy.eval()), curve


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
) -> Iterator[torch.Tensor]:
    """A batch's mean loss in shares, one a pass; ``seen`` gets the policy's log-probabilities."""
    for part in parts:
        chosen, rejected = pair_log_probs(policy, rows[part], rule, pad)
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
    model: torch.nn.Module, rows: Sequence[PairIds], rule: str, pad: int, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all chosen and all rejected actions, [N] each, without gradients."""
    parts = [
        pair_log_probs(model, some[part], rule, pad)
        for some in batches(rows, batch)
        for part in passes(some, LocalModel.batch_tokens)
    ]
    chosen, rejected = zip(*parts, strict=True)
    return torch.cat(chosen), torch.cat(rejected)
