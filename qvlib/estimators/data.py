"""Preference pairs as token ids, and the log-probabilities of actions that losses are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import torch

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import replay
from qvlib.core.preferences import Pair, accuracy
from qvlib.core.step_values import Siblings
from qvlib.core.types import Environment, QModel, State, Task
from qvlib.estimators.estimator import Problem
from qvlib.models import packing
from qvlib.models.local import Ids, LocalModel
from qvlib.models.training import padded


@dataclass(frozen=True, slots=True)
class PairIds:
    """Token ids of a pair: the prompt, and the two actions, end token included."""

    prompt: Ids
    chosen: Ids
    rejected: Ids

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer action."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def sequences(self) -> int:
        """Sequences that it takes where its actions do not share one."""
        return 2


@dataclass(frozen=True, slots=True)
class ValuedIds(PairIds):
    """A pair with the difference of its values, in favour of what is chosen."""

    difference: float


def encode_pairs(lm: LocalModel, states: Sequence[State], pairs: Sequence[Pair]) -> list[PairIds]:
    """Token ids of pairs, each of its state."""
    rows = []
    for state, pair in zip(states, pairs, strict=True):
        prompt, ids = lm.prompt(state)
        rows.append(
            PairIds(ids, lm.action_ids(prompt, pair.chosen), lm.action_ids(prompt, pair.rejected))
        )
    return rows


def encode(environment: Environment, lm: LocalModel, pairs: Sequence[Pair]) -> list[PairIds]:
    """Token ids of pairs whose states are replayed, by the prompt the agent itself reads.

    Raises:
        QvlibError: a pair's task is not a training task of the environment.
    """
    task_of = training_task(environment, "pair")
    tasks = [task_of(p.task) for p in pairs]
    states = [replay(environment, t, p.path) for t, p in zip(tasks, pairs, strict=True)]
    return encode_pairs(lm, states, pairs)


def training_task(environment: Environment, what: str) -> Callable[[str], Task]:
    """Id -> the training task, of what was made on them: ``what``, one of them.

    Raises:
        QvlibError: (when asked) there is no such training task.
    """
    tasks = {task.id: task for task in environment.tasks("train")}

    def task_of(name: str) -> Task:
        if name not in tasks:
            raise QvlibError(
                f"{what} of task {name!r:.40}: no such training task; use trees made on the same "
                "data"
            )
        return tasks[name]

    return task_of


def best_against_worst(group: Siblings, scores: Sequence[float]) -> Pair:
    """The pair of the actions of a state that score highest and lowest; its values are scores."""
    best, worst = (max(enumerate(scores), key=lambda s: sign * s[1])[0] for sign in (1, -1))
    return Pair(
        group.task,
        group.node,
        group.path,
        group.actions[best],
        group.actions[worst],
        scores[best],
        scores[worst],
        group.visits[best],
        group.visits[worst],
    )


def fitting(lm: LocalModel, pairs: Sequence[PairIds]) -> list[PairIds]:
    """The pairs that fit the model's context, prompt and longer action; nothing is cut."""
    return [row for row in pairs if row.longest <= lm.context]


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
            f"no pair fits the model's context of {lm.context} tokens; use a model with a longer "
            "one or a shorter prompt style"
        )
    return fit, fitting(lm, held_out)


def action_log_probs(
    model: torch.nn.Module, rows: Sequence[tuple[Ids, Ids]], rule: str, pad: int
) -> torch.Tensor:
    """log pi(action | prompt) in nats, [B], with gradients; rows are (prompt, action) ids.

    rule: ``sum`` over the action's tokens, or their ``mean``. Padding is on the right.
    """
    log_probs, targets, mask = token_log_probs(model, rows, pad)
    token = log_probs.gather(2, targets[..., None])[..., 0] * mask
    return token.sum(1) / (mask.sum(1) if rule == "mean" else 1)


def token_log_probs(
    model: torch.nn.Module, rows: Sequence[tuple[Ids, Ids]], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(log pi of all tokens where actions stand [B, T, V], those that stand there, a mask [B, T]).

    rows: (prompt, action) ids; the mask is true at an action's tokens. With gradients; padding is
    on the right.
    """
    packed = [(p + a, [False] * len(p) + [True] * len(a)) for p, a in rows]
    ids, on_action, attention = padded(packed, pad, next(model.parameters()).device)
    # Only the last positions are needed: memory runs out on the logits of a large vocabulary.
    keep = ids.shape[1] - min(len(p) for p, _ in rows) + 1
    logits = model(input_ids=ids, attention_mask=attention, logits_to_keep=keep).logits[:, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    targets, mask = ids[:, -(keep - 1) :], on_action[:, -(keep - 1) :]
    return torch.log_softmax(logits, dim=-1), targets, mask


def pair_log_probs(
    model: torch.nn.Module, rows: Sequence[PairIds], rule: str, pad: int, packed: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """log pi of the chosen and of the rejected actions in nats, [B] each, with gradients.

    rule: as in ``action_log_probs``. A row is [prompt | chosen | rejected]: the prompt is computed
    once, and the two actions do not see each other. Rows much shorter than the longest pass by
    themselves, since padding costs as much as text. packed: whether the model can do that
    (``packs``); else each action is a row of its own.
    """
    if not packed:
        actions = [(r.prompt, r.chosen) for r in rows] + [(r.prompt, r.rejected) for r in rows]
        chosen, rejected = action_log_probs(model, actions, rule, pad).chunk(2)
        return chosen, rejected
    order = sorted(range(len(rows)), key=lambda i: _packed(rows[i]), reverse=True)
    parts: list[list[int]] = []
    for i in order:
        if not parts or _packed(rows[i]) < 0.7 * _packed(rows[parts[-1][0]]):
            parts.append([])
        parts[-1].append(i)
    both = torch.cat(
        [_packed_log_probs(model, [rows[i] for i in part], rule, pad) for part in parts]
    )
    chosen, rejected = both[torch.argsort(torch.tensor(order)).to(both.device)].unbind(1)
    return chosen, rejected


# Nats a token that rounding may make between two ways through a model (135 million parameters in
# float32: 0.000002); a float64 model may do some of its work in float32.
ROUNDING = {torch.float32: 3e-5, torch.float64: 3e-5}
COARSE_ROUNDING = 3e-2  # in half precision


def packs(model: torch.nn.Module, rows: Sequence[PairIds], pad: int) -> bool:
    """Whether a packed pair is to the model what its two actions are by themselves.

    Tried on the longest pairs: a sliding window shows beyond its width alone. It is not where a
    mask or positions of one's own are refused or not heeded (ALiBi) or widen a window, nor where
    the rejected action reads the chosen one through a recurrent state: then another chosen action
    changes what the rejected one gets.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # what ROUNDING is meant for
    try:
        return _packs(model, rows, pad)
    finally:
        torch.set_float32_matmul_precision(before)


def _packs(model: torch.nn.Module, rows: Sequence[PairIds], pad: int) -> bool:
    most = ROUNDING.get(next(model.parameters()).dtype, COARSE_ROUNDING)
    for row in {max(rows, key=_packed), max(rows, key=attrgetter("longest"))}:
        other = replace(row, chosen=row.prompt[:1] * len(row.chosen))
        with torch.no_grad():
            alone = torch.cat(pair_log_probs(model, [row], "mean", pad, packed=False))
            try:
                together, beside_other = (
                    torch.cat(pair_log_probs(model, [pair], "mean", pad)) for pair in (row, other)
                )
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, TypeError, ValueError):  # what models say of what they cannot do
                return False
        # Of the same shape the same sums are made in the same order: less is told apart there.
        apart = torch.cat([together - alone, 10 * (beside_other[1:] - together[1:])])
        if not apart.abs().max() <= most:
            return False
    return True


def _packed(row: PairIds) -> int:
    return len(row.prompt) + len(row.chosen) + len(row.rejected)


def _packed_log_probs(
    model: torch.nn.Module, rows: Sequence[PairIds], rule: str, pad: int
) -> torch.Tensor:
    """[B, 2]: ``pair_log_probs`` of rows of similar length, in one padded pass."""
    width, device = max(map(_packed, rows)), next(model.parameters()).device
    together = packing.packed([(row.prompt, (row.chosen, row.rejected)) for row in rows], pad)
    ids, part, before = together.ids, together.part, together.before
    first = min(len(row.prompt) for row in rows) - 1
    logits = model(
        input_ids=ids.to(device),
        attention_mask=together.mask(next(model.parameters()).dtype).to(device),
        position_ids=together.place.to(device),
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
    summed = torch.zeros(2 * len(rows), dtype=values.dtype, device=device).index_add(
        0, which, values
    )
    if rule == "mean":
        summed = summed / torch.bincount(which, minlength=2 * len(rows))
    return summed.view(-1, 2)


def passes(rows: Sequence[PairIds], tokens: int, packed: bool = True) -> Iterator[slice]:
    """The rows in order, cut where a padded pass would hold more than ``tokens``.

    packed: as ``pair_log_probs`` is to take them. One row passes however long it is.
    """
    size = _packed if packed else lambda row: row.sequences * row.longest
    start = longest = 0
    for i, row in enumerate(rows):
        longest = max(longest, size(row))
        if i > start and (i + 1 - start) * longest > tokens:
            yield slice(start, i)
            start, longest = i, size(row)
    yield slice(start, len(rows))


def ordered_by_task(problem: Problem, q_model: QModel) -> dict[str, list[float]]:
    """Task -> [held-out pairs that a Q model orders rightly, held-out pairs].

    A tie counts one half; pairs longer than the reference's context are left out.
    """
    task_of = training_task(problem.environment, "pair")
    states = [replay(problem.environment, task_of(p.task), p.path) for p in problem.held_out]
    rows = encode_pairs(problem.reference, states, problem.held_out)
    fit = set(map(id, fitting(problem.reference, rows)))
    kept = [i for i, row in enumerate(rows) if id(row) in fit]
    pairs = [problem.held_out[i] for i in kept]
    if not pairs:
        return {}
    scores = q_model.score([states[i] for i in kept], [[p.chosen, p.rejected] for p in pairs])
    return counted(pairs, scores)


def counted(pairs: Sequence[Pair], scores: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Task -> [pairs that are ordered rightly, pairs]; scores: of (chosen, rejected) of each."""
    counts: dict[str, list[float]] = {}
    for pair, (chosen, rejected) in zip(pairs, scores, strict=True):
        count = counts.setdefault(pair.task, [0.0, 0])
        count[0] += accuracy(np.array([chosen]), np.array([rejected]))
        count[1] += 1
    return counts
