"""Step-level direct preference optimisation (arXiv 2409.09345, eq. for the step-level loss; DPO: arXiv 2305.18290).

The loss is a pure function of four vectors of log-probabilities. Two trainers use it: a plain loop for
small models, which needs a good half of TRL's time for them, and TRL's ``DPOTrainer``
(``trl_training``) for large ones, with LoRA and checkpoints.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.core.preferences import Pair
from qvlib.core.types import Environment, State, Task
from qvlib.models.local import Ids, LocalModel


@dataclass(frozen=True, slots=True)
class PairIds:
    """Token ids of a pair: the prompt, and the two actions, end token included."""

    prompt: Ids
    chosen: Ids
    rejected: Ids


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """-log sigmoid(beta [(log pi - log pi_ref)(chosen) - (log pi - log pi_ref)(rejected)]), shape [B].

    chosen, rejected: log-probabilities of the two actions under the policy, nats, [B];
    ref_*: under the reference, [B]. With policy = reference it is ln 2.
    """
    return -F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


def rebuild(environment: Environment, task: Task, path: Sequence[str]) -> State:
    """The state after the actions of ``path``: transitions are deterministic, so replay restores it."""
    state = environment.reset(task)
    for action in path:
        state = environment.step(state, action)
    return state


def encode_pairs(lm: LocalModel, states: Sequence[State], pairs: Sequence[Pair]) -> list[PairIds]:
    """Token ids of pairs, by the prompt the agent itself reads."""
    rows = []
    for state, pair in zip(states, pairs, strict=True):
        prompt, ids = lm.prompt(state)
        rows.append(
            PairIds(ids, lm.action_ids(prompt, pair.chosen), lm.action_ids(prompt, pair.rejected))
        )
    return rows


def fitting(lm: LocalModel, pairs: Sequence[PairIds]) -> list[PairIds]:
    """The pairs that fit the model's context, prompt and longer action; the others are dropped, nothing is cut."""
    return [
        row
        for row in pairs
        if len(row.prompt) + max(len(row.chosen), len(row.rejected)) <= lm.context
    ]


def some_fit(
    lm: LocalModel, pairs: Sequence[PairIds], held_out: Sequence[PairIds]
) -> tuple[list[PairIds], list[PairIds]]:
    """``fitting`` of training and of held-out pairs.

    Raises:
        QvlibError: no training pair fits.
    """
    fit = fitting(lm, pairs)
    if not fit:
        raise QvlibError(
            f"no pair fits the model's context of {lm.context} tokens; use a model with a longer one or a "
            "shorter prompt style"
        )
    return fit, fitting(lm, held_out)


def action_log_probs(
    model: torch.nn.Module, rows: Sequence[tuple[Ids, Ids]], rule: str, pad: int
) -> torch.Tensor:
    """log pi(action | prompt) in nats, [B], with gradients; rows are (prompt, action) ids.

    rule: ``sum`` over the action's tokens, or their ``mean``. Padding is on the right.
    """
    width = max(len(p) + len(a) for p, a in rows)
    device = next(model.parameters()).device
    ids = torch.full((len(rows), width), pad)
    on_action = torch.zeros((len(rows), width), dtype=torch.bool)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    for i, (p, a) in enumerate(rows):
        ids[i, : len(p) + len(a)] = torch.tensor(p + a)
        on_action[i, len(p) : len(p) + len(a)] = True
        attention[i, : len(p) + len(a)] = 1
    ids, on_action, attention = ids.to(device), on_action.to(device), attention.to(device)
    # Only the last positions are needed: the logits of a large vocabulary are what memory runs out on.
    keep = width - min(len(p) for p, _ in rows) + 1
    logits = model(input_ids=ids, attention_mask=attention, logits_to_keep=keep).logits[:, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    targets, mask = ids[:, -(keep - 1) :], on_action[:, -(keep - 1) :]
    token = torch.log_softmax(logits, dim=-1).gather(2, targets[..., None])[..., 0] * mask
    return token.sum(1) / (mask.sum(1) if rule == "mean" else 1)


def pair_log_probs(
    model: torch.nn.Module, rows: Sequence[PairIds], rule: str, pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """log pi of the chosen and of the rejected actions in nats, [B] each, with gradients, by ``action_log_probs``' rule.

    A row is [prompt | chosen | rejected]: the prompt is computed once, and the two actions do not see each
    other. Rows much shorter than the longest pass by themselves, since padding costs as much as text.
    """
    order = sorted(range(len(rows)), key=lambda i: _packed(rows[i]), reverse=True)
    parts: list[list[int]] = []
    for i in order:
        if not parts or _packed(rows[i]) < 0.7 * _packed(rows[parts[-1][0]]):
            parts.append([])
        parts[-1].append(i)
    found = torch.cat(
        [_packed_log_probs(model, [rows[i] for i in part], rule, pad) for part in parts]
    )
    chosen, rejected = found[torch.argsort(torch.tensor(order)).to(found.device)].unbind(1)
    return chosen, rejected


def _packed(row: PairIds) -> int:
    return len(row.prompt) + len(row.chosen) + len(row.rejected)


def _packed_log_probs(
    model: torch.nn.Module, rows: Sequence[PairIds], rule: str, pad: int
) -> torch.Tensor:
    """[B, 2]: ``pair_log_probs`` of rows of similar length, in one padded pass."""
    width, device = max(map(_packed, rows)), next(model.parameters()).device
    ids, place = (
        torch.full((len(rows), width), pad),
        torch.zeros((len(rows), width), dtype=torch.long),
    )
    part = torch.full((len(rows), width), 3)  # 0 prompt, 1 chosen, 2 rejected, 3 padding
    before = torch.zeros((len(rows), width), dtype=torch.long)  # where the token before it stands
    for i, row in enumerate(rows):
        p, c, r = len(row.prompt), len(row.chosen), len(row.rejected)
        ids[i, : p + c + r] = torch.tensor(row.prompt + row.chosen + row.rejected)
        part[i, : p + c + r] = torch.tensor([0] * p + [1] * c + [2] * r)
        place[i, : p + c + r] = torch.tensor([*range(p + c), *range(p, p + r)])
        before[i, p : p + c + r] = torch.tensor(
            [*range(p - 1, p + c - 1), p - 1, *range(p + c, p + c + r - 1)]
        )
    seen = torch.ones(width, width, dtype=torch.bool).tril() & (
        (part[:, None] == 0) | (part[:, None] == part[..., None])
    )
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
    first = min(len(row.prompt) for row in rows) - 1
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=place.to(device),
        use_cache=False,
        logits_to_keep=width - first,
    ).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    token = torch.log_softmax(logits, dim=-1)
    row, column = torch.nonzero((part == 1) | (part == 2), as_tuple=True)
    values = token[
        row.to(device), (before[row, column] - first).to(device), ids[row, column].to(device)
    ]
    which = (2 * row + part[row, column] - 1).to(device)
    found = torch.zeros(2 * len(rows), dtype=values.dtype, device=device).index_add(
        0, which, values
    )
    return (
        found / torch.bincount(which, minlength=2 * len(rows)) if rule == "mean" else found
    ).view(-1, 2)


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

    Learning rate: ``lr`` times ``rate_at``. Pairs that are longer than the model's context are dropped (``fitting``).
    A batch of more tokens than ``lm.batch_tokens`` takes several passes, whose gradients add up.
    Returns the policy and its curve (``curve_row`` at every step, and on ``held_out`` at each epoch's end).

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


def passes(rows: Sequence[PairIds], tokens: int) -> Iterator[slice]:
    """The rows in order, cut where a padded pass would hold more than ``tokens``; one row passes however long it is."""
    start = longest = 0
    for i, row in enumerate(rows):
        longest = max(longest, _packed(row))
        if i > start and (i + 1 - start) * longest > tokens:
            yield slice(start, i)
            start, longest = i, _packed(row)
    yield slice(start, len(rows))


def rate_at(step: int, steps: int, schedule: str) -> float:
    """Share of the learning rate at a step: linear warm-up over a tenth of the steps, then to zero or ``constant``."""
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
    """Loss, margin beta * (Q_w - Q_l) in nats, accuracy, and both mean log-probabilities of a batch."""
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
