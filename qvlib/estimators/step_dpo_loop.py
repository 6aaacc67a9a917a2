"""Step-level DPO in a plain loop, for small models (arXiv 2409.09345; DPO: arXiv 2305.18290).

The loss, ``qvlib.core.dpo.dpo_loss``, is a pure function of four vectors of log-probabilities.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

from qvlib.base.seeding import generator
from qvlib.core.dpo import dpo_loss
from qvlib.estimators.data import PairIds, pair_log_probs, passes, some_fit
from qvlib.models.local import LocalModel


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

    Learning rate: ``lr`` times ``rate_at``. Pairs that are longer than the model's context are
    dropped (``fitting``). A batch of more tokens than ``lm.batch_tokens`` takes several passes,
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
    total = epochs * ((len(pairs) + batch - 1) // batch)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, weight_decay=0.0, fused=True)
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_at(step, total, schedule)
    )
    curve: list[dict[str, float]] = []
    with tqdm(total=total, desc=label, unit="batch") as bar:
        for epoch in range(epochs):
            order = generator(seed, "dpo", epoch).permutation(len(pairs))
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                rows = [pairs[i] for i in chosen]
                optimizer.zero_grad()
                seen = []
                for part in passes(rows, lm.batch_tokens):
                    w, l = pair_log_probs(policy, rows[part], rule, pad)
                    loss = dpo_loss(
                        w, l, reference[0][chosen[part]], reference[1][chosen[part]], beta
                    )
                    (loss.mean() * (len(w) / len(rows))).backward()
                    seen.append((w.detach(), l.detach()))
                w, l = (torch.cat(both) for both in zip(*seen, strict=True))
                torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
                optimizer.step()
                rates.step()
                curve.append(
                    curve_row(
                        len(curve), "train", w, l, reference[0][chosen], reference[1][chosen], beta
                    )
                )
                bar.update()
            if reference_held:
                policy.eval()
                with torch.no_grad():
                    w, l = _both(policy, held_out, rule, pad, batch)
                curve.append(curve_row(len(curve), "held-out", w, l, *reference_held, beta))
                policy.train()
    return lm.tuned(policy.eval()), curve


def rate_at(step: int, steps: int, schedule: str) -> float:
    """Share of the learning rate at a step: warm-up over a tenth of the steps, then ``schedule``.

    schedule: ``linear`` to zero, or ``constant``.
    """
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 1.0 if schedule == "constant" else max(0.0, (steps - step) / max(1, steps - warm_up))


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
    batches = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    parts = [
        pair_log_probs(model, some[part], rule, pad)
        for some in batches
        for part in passes(some, LocalModel.batch_tokens)
    ]
    return torch.cat([w for w, _ in parts]), torch.cat([l for _, l in parts])
