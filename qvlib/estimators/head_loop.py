"""The training loop of value heads: batches of states, each with its visited actions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm.auto import tqdm

from qvlib.estimators import heads
from qvlib.estimators.data import PairIds, ordered_by_task, packs
from qvlib.estimators.estimator import Card, Fitted, Problem
from qvlib.estimators.features import frozen
from qvlib.estimators.head_settings import HeadSettings
from qvlib.estimators.heads import Group, HeadScorer, Loss, Read, first
from qvlib.models.heads import Beside, Head
from qvlib.models.hidden import Headless, headless, last_hidden, packed_hidden
from qvlib.models.training import (
    Checkpoint,
    batches,
    descend,
    must_be_finite,
    named,
    order,
    scheduled,
    steps_in_all,
)

OutputsOf = Callable[[torch.nn.Module, torch.nn.Module, Sequence[Group]], Iterator[Any]]
"""(model, head, groups) -> the head's outputs of each group, [replies, O], in parts."""


class Moving(Protocol):
    """Targets that move with what is trained; ``network`` holds what they are computed by."""

    network: torch.nn.Module

    def __call__(self, batch: Sequence[Group]) -> Sequence[Any]:
        """What the loss of each group is told in the place of its targets."""

    def follow(self) -> None:
        """A step of training was taken."""


def fit_head(
    problem: Problem,
    groups: Sequence[Group],
    settings: HeadSettings,
    loss: Loss,
    *,
    score: str,
    recipe: str,
    outputs: int = 1,
    read: Read = first,
    head: Head | Beside | None = None,
    moving: Callable[[torch.nn.Module, torch.nn.Module, OutputsOf], Moving] | None = None,
) -> Fitted:
    """Fit a head to groups of actions, by ``loss``: the whole of an estimator with a head.

    The loss of a batch is the mean over its states of the mean of their terms. ``features: tuned``
    trains a copy of the reference below the head; ``frozen`` the head alone. score, recipe: for the
    model's card (``Card``). head: another than one of the settings' form with so many outputs.
    moving: (model, head, how both are asked) -> targets that move; None = those of the groups.

    Raises:
        QvlibError: training diverged, or a checkpoint cannot be read or written.
    """
    tuned = settings.features == "tuned"
    lm = problem.reference
    head = head or heads.new_head(lm, settings, outputs, problem.seed)
    if tuned:
        model: torch.nn.Module = Headless(copy.deepcopy(lm.model).eval())
        outputs_of: OutputsOf = partial(_tuned, lm.end, _packs(problem, groups), lm.batch_tokens)
    else:
        model, known = torch.nn.Identity(), _known(problem, groups)
        head.standardise(torch.cat(list(known.values())))
        outputs_of = partial(_frozen, known)
    targets = moving(model, head, outputs_of) if moving else None
    curve = _descended(problem, groups, settings, loss, model, head, outputs_of, targets)
    backbone = lm.tuned(model.model) if tuned else None  # type: ignore[arg-type]
    scorer = HeadScorer(headless(backbone or lm), head.eval(), read)
    by_task = ordered_by_task(problem, scorer)
    facts = heads.facts_of(problem, groups, by_task)
    if by_task:
        accuracy = facts["held_out_accuracy"]
        curve.append(heads.row(len(curve), "held-out", None, accuracy, len(by_task)))
    how = "the model and a head" if tuned else "a head on the model's frozen hidden states"
    epochs = (
        f"{settings.fit_epochs} epochs of {facts['pairs']} states with {facts['steps']} actions"
    )
    card = Card(
        "transformers" if tuned else "safetensors",
        ("step-level-q-value", "value-head"),
        score,
        f"{recipe}; {how}, rate {settings.fit_lr:g}, {epochs}",
    )
    return Fitted(lambda folder: heads.save(folder, head, backbone), curve, facts, card)


def _packs(problem: Problem, groups: Sequence[Group]) -> bool:
    """Whether actions can share their prompt's row (``data.packs``), tried on the widest groups."""
    widest = sorted(groups, key=lambda group: group.size, reverse=True)[:2]
    rows = [PairIds(g.prompt, g.replies[0], g.replies[-1]) for g in widest]
    return packs(problem.reference.model, rows, problem.reference.end)


def _known(problem: Problem, groups: Sequence[Group]) -> dict[int, torch.Tensor]:
    """The frozen hidden states of each group's actions, by its place in memory."""
    rows = [(group.prompt, reply) for group in groups for reply in group.replies]
    features = iter(frozen(problem, rows))
    return {id(g): torch.stack([next(features) for _ in g.replies]) for g in groups}


def _frozen(
    known: dict[int, torch.Tensor],
    model: torch.nn.Module,
    head: torch.nn.Module,
    batch: Sequence[Group],
) -> Iterator[list[torch.Tensor]]:
    """The outputs of a batch's groups, in one part."""
    sizes = [len(group.replies) for group in batch]
    weight = next(head.parameters())
    hidden = torch.cat([known[id(group)] for group in batch]).to(weight.device, weight.dtype)
    yield list(head(hidden).split(sizes))


def _tuned(
    pad: int,
    packed: bool,
    tokens: int,
    model: torch.nn.Module,
    head: torch.nn.Module,
    batch: Sequence[Group],
) -> Iterator[list[torch.Tensor]]:
    """The outputs of a batch's groups in parts, each a padded pass of at most ``tokens``."""
    for part in _parts(batch, tokens, packed):
        sizes = [len(group.replies) for group in part]
        if packed:
            hidden = packed_hidden(model, [(g.prompt, g.replies) for g in part], pad)
        else:
            hidden = last_hidden(model, [(g.prompt, r) for g in part for r in g.replies], pad)
        yield list(head(hidden).split(sizes))


def _parts(batch: Sequence[Group], tokens: int, packed: bool) -> Iterator[list[Group]]:
    """Groups in the order of the batch, cut where a pass would be longer than ``tokens``."""
    part: list[Group] = []
    longest = rows = 0
    for group in batch:
        width = max(longest, group.size if packed else group.longest)
        more = rows + (1 if packed else len(group.replies))
        if part and width * more > tokens:
            yield part
            part, rows = [], 0
            width, more = (group.size, 1) if packed else (group.longest, len(group.replies))
        part.append(group)
        longest, rows = width, more
    if part:
        yield part


def _descended(
    problem: Problem,
    groups: Sequence[Group],
    settings: HeadSettings,
    loss: Loss,
    model: torch.nn.Module,
    head: torch.nn.Module,
    outputs_of: OutputsOf,
    moving: Moving | None = None,
) -> list[dict[str, Any]]:
    """Train in place; returns the curve, a row a step."""
    total = steps_in_all(len(groups), settings.fit_batch, settings.fit_epochs)
    parts = [{"params": list(head.parameters()), "lr": settings.head_lr or settings.fit_lr}]
    if list(model.parameters()):
        parts.append({"params": [p for p in model.parameters() if p.requires_grad]})
    optimizer = torch.optim.AdamW(parts, lr=settings.fit_lr, weight_decay=0.0, fused=True)
    rates = scheduled(optimizer, total, "linear")
    known_by = settings.model_dump() | {"seed": problem.seed, "loss": getattr(loss, "__name__", "")}
    both = torch.nn.ModuleDict({"model": model, "head": head})
    if moving is not None:
        both["targets"] = moving.network  # kept in checkpoints; nothing there has a gradient
    path = named(Path(problem.scratch), known_by, groups)
    kept = Checkpoint(path, total, both, optimizer, rates)
    curve: list[dict[str, Any]] = kept.curve
    step = 0
    with tqdm(total=total, initial=kept.done, desc=problem.label, unit="batch") as bar:
        for epoch in range(settings.fit_epochs):
            drawn = order(len(groups), problem.seed, "head", epoch)
            for places in batches(drawn, settings.fit_batch):
                step += 1
                if step <= kept.done:
                    continue
                batch, seen = [groups[i] for i in places], []
                what = f"{problem.label}, step {step} of {total}"
                told = moving(batch) if moving else [group.targets for group in batch]
                found = outputs_of(model, head, batch)
                losses = _losses(found, told, loss, seen, what, settings.fit_lr)
                descend(both, optimizer, losses, rates)
                if moving is not None:
                    moving.follow()
                curve.append(heads.row(len(curve), "train", sum(seen), None, len(batch)))
                kept.step()
                bar.update()
    return curve


def _losses(
    parts: Iterator[list[torch.Tensor]],
    targets: Sequence[Any],
    loss: Loss,
    seen: list[float],
    what: str,
    lr: float,
) -> Iterator[torch.Tensor]:
    """A batch's mean loss in shares, one a pass; ``seen`` gets their values."""
    left = iter(targets)
    for outputs in parts:
        terms = [
            loss(out, torch.as_tensor(next(left), dtype=out.dtype, device=out.device)).mean()
            for out in outputs
        ]
        share = torch.stack(terms).sum() / len(targets)
        must_be_finite(share.detach(), what, f"lower fit_lr (now {lr:g})")
        seen.append(share.item())
        yield share
