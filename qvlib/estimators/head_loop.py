"""The training loop of value heads: batches of states, each with its visited actions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import nlargest
from typing import Any, Protocol

import torch

from qvlib.estimators import heads
from qvlib.estimators.data import PairIds, ordered_by_task, packs
from qvlib.estimators.descent import descended, row
from qvlib.estimators.estimator import Card, Fitted, Problem
from qvlib.estimators.features import frozen
from qvlib.estimators.head_settings import HeadSettings
from qvlib.estimators.heads import Compared, HeadScorer, Loss, Read, first
from qvlib.models import packing
from qvlib.models.heads import Beside, Head
from qvlib.models.hidden import Headless, Row, headless, last_hidden, packed_hidden
from qvlib.models.local import LocalModel
from qvlib.models.training import must_be_finite

OutputsOf = Callable[[torch.nn.Module, torch.nn.Module, Sequence[Compared]], Iterator[Any]]
"""(model, head, groups) -> the head's outputs of each group, [replies, O], in parts."""


class Moving(Protocol):
    """Targets that move with what is trained; ``network`` holds what they are computed by."""

    network: torch.nn.Module

    def __call__(self, batch: Sequence[Compared]) -> Sequence[Any]:
        """What the loss of each group is told in the place of its targets."""

    def follow(self) -> None:
        """A step of training was taken."""


MovingOf = Callable[[Sequence[Any], torch.nn.Module, torch.nn.Module, OutputsOf], Moving]
"""(all groups, model, head, how both are asked) -> targets that move."""


def fit_head(
    problem: Problem,
    groups: Sequence[Compared],
    settings: HeadSettings,
    loss: Loss,
    *,
    score: str,
    recipe: str,
    outputs: int = 1,
    read: Read = first,
    head: Head | Beside | None = None,
    moving: MovingOf | None = None,
    each: str = "states",
) -> Fitted:
    """Fit a head to groups of actions, by ``loss``: the whole of an estimator with a head.

    Groups that do not fit the model's context are dropped and counted. The loss of a batch is the
    mean over its groups of the mean of their terms. ``features: tuned`` trains a copy of the
    reference below the head; ``frozen`` the head alone. score, recipe: for the model's card
    (``Card``). head: another than one of the settings' form with so many outputs. moving: None =
    the targets are those of the groups. each: what groups are, in the plural.

    Raises:
        QvlibError: nothing fits the model's context, training diverged, or a checkpoint cannot be
            read or written.
    """
    tuned = settings.features == "tuned"
    lm = problem.reference
    fit = heads.fitting(lm, groups)
    head = head or heads.new_head(lm, settings, outputs, problem.seed)
    if tuned:
        model: torch.nn.Module = Headless(copy.deepcopy(lm.model).eval())
        outputs_of: OutputsOf = partial(_tuned, lm.end, _packs(problem, fit), lm.batch_tokens)
    else:
        model, known = torch.nn.Identity(), _known(problem, fit)
        head.standardise(torch.cat(list(known.values())))
        outputs_of = partial(_frozen, known)
    trained = torch.nn.ModuleDict({"model": model, "head": head})
    targets = moving(fit, model, head, outputs_of) if moving else None
    if targets is not None:
        trained["targets"] = targets.network  # kept in checkpoints; nothing there has a gradient

    def shares(batch: Sequence[Compared], seen: list[float], what: str) -> Iterator[torch.Tensor]:
        told = targets(batch) if targets else [group.targets for group in batch]
        found = outputs_of(model, head, batch)
        return _losses(found, told, loss, seen, what, settings.fit_lr)

    curve = descended(
        problem,
        fit,
        trained,
        _optimizer(settings, model, head),
        shares,
        epochs=settings.fit_epochs,
        batch=settings.fit_batch,
        stream="head",
        known_by=settings.model_dump() | {"loss": getattr(loss, "__name__", "")},
        after=targets.follow if targets else None,
    )
    backbone = lm.tuned(model.model) if tuned else None  # type: ignore[arg-type]
    return finished(
        problem,
        fit,
        settings,
        head,
        backbone,
        curve,
        read=read,
        score=score,
        recipe=recipe,
        each=each,
        dropped=len(groups) - len(fit),
    )


def finished(
    problem: Problem,
    groups: Sequence[Compared],
    settings: HeadSettings,
    head: Head | Beside,
    backbone: LocalModel | None,
    curve: list[dict[str, Any]],
    *,
    score: str,
    recipe: str,
    read: Read = first,
    each: str = "states",
    dropped: int = 0,
) -> Fitted:
    """What a trained head, with the model that was trained below it, is told of and saved as.

    The accuracy on held-out pairs is added to the curve. groups: what it was fitted to; dropped:
    how many others did not fit the model's context.
    """
    scorer = HeadScorer(headless(backbone or problem.reference), head.eval(), read)
    by_task = ordered_by_task(problem, scorer)
    facts = heads.facts_of(problem, groups, by_task, dropped)
    if by_task:
        accuracy = facts["held_out_accuracy"]
        curve.append(row(len(curve), "held-out", None, accuracy, facts["held_out_pairs"]))
    how = "the model and a head" if backbone else "a head on the model's frozen hidden states"
    epochs = (
        f"{settings.fit_epochs} epochs of {facts['pairs']} {each} with {facts['steps']} actions"
    )
    card = Card(
        "transformers" if backbone else "safetensors",
        ("step-level-q-value", "value-head"),
        score,
        f"{recipe}; {how}, rate {settings.fit_lr:g}, {epochs}",
    )
    return Fitted(lambda folder: heads.save(folder, head, backbone), curve, facts, card)


def _packs(problem: Problem, groups: Sequence[Compared]) -> bool:
    """Whether actions can share their prompt's row (``data.packs``), tried on the widest groups."""
    parts = (part for group in groups for part in group.parts)
    widest = nlargest(2, parts, key=lambda part: packing.size(*part))
    rows = [PairIds(prompt, replies[0], replies[-1]) for prompt, replies in widest]
    return packs(problem.reference.model, rows, problem.reference.end)


def _known(problem: Problem, groups: Sequence[Compared]) -> dict[int, torch.Tensor]:
    """The frozen hidden states of each group's actions, by its place in memory."""
    features = iter(frozen(problem, _rows(groups)))
    return {id(g): torch.stack([next(features) for _ in g.replies]) for g in groups}


def _rows(groups: Sequence[Compared]) -> list[Row]:
    """(prompt, action) of every action in order."""
    parts = (part for group in groups for part in group.parts)
    return [(prompt, reply) for prompt, replies in parts for reply in replies]


def _frozen(
    known: dict[int, torch.Tensor],
    model: torch.nn.Module,
    head: torch.nn.Module,
    batch: Sequence[Compared],
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
    batch: Sequence[Compared],
) -> Iterator[list[torch.Tensor]]:
    """The outputs of a batch's groups in parts, each a padded pass of at most ``tokens``."""
    for part in _parts(batch, tokens, packed):
        sizes = [len(group.replies) for group in part]
        if packed:
            hidden = packed_hidden(model, [row for g in part for row in g.parts], pad)
        else:
            hidden = last_hidden(model, _rows(part), pad)
        yield list(head(hidden).split(sizes))


def _parts(batch: Sequence[Compared], tokens: int, packed: bool) -> Iterator[list[Compared]]:
    """Groups in the order of the batch, cut where a pass would be longer than ``tokens``."""
    part: list[Compared] = []
    longest = rows = 0
    for group in batch:
        size, own = group.longest, len(group.replies)
        if packed:
            size, own = group.size, len(group.parts)
        if part and max(longest, size) * (rows + own) > tokens:
            yield part
            part, rows, longest = [], 0, 0
        part.append(group)
        longest, rows = max(longest, size), rows + own
    if part:
        yield part


def _optimizer(
    settings: HeadSettings, model: torch.nn.Module, head: torch.nn.Module
) -> torch.optim.Optimizer:
    """Of the head, at its own rate where it has one, and of what is trained below it."""
    parts = [{"params": list(head.parameters()), "lr": settings.head_lr or settings.fit_lr}]
    if list(model.parameters()):
        parts.append({"params": [p for p in model.parameters() if p.requires_grad]})
    return torch.optim.AdamW(parts, lr=settings.fit_lr, weight_decay=0.0, fused=True)


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
