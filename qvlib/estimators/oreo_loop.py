"""The training loop of OREO: batches of trajectories, each step a row of a pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import decisions
from qvlib.core.step_values import outcomes, trajectories, weigher
from qvlib.estimators import heads
from qvlib.estimators.data import ordered_by_task, token_log_probs, training_task
from qvlib.estimators.descent import descended, row
from qvlib.estimators.estimator import Card, Fitted, Problem
from qvlib.models.heads import Head
from qvlib.models.hidden import Headless, Row, headless, hidden_around
from qvlib.models.training import must_be_finite

Loss = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]
]
"""(log-ratios, V before, V after each action of a trajectory, what it found) -> (L_V, L_pi)."""


@dataclass(frozen=True, slots=True)
class Training:
    """``method`` is its name and the loss's settings; kl weighs KL(pi || pi_ref) a token."""

    method: str
    kl: float
    lr: float
    epochs: int
    batch: int


@dataclass(frozen=True, slots=True)
class Steps:
    """A trajectory as token ids, what it found, its weight: its visits over those of the mean."""

    rows: tuple[Row, ...]
    value: float
    weight: float


def encoded(problem: Problem) -> tuple[list[Steps], int]:
    """The trajectories whose steps all fit the model's context, and how many others there are.

    Raises:
        QvlibError: a tree's task is no training task of the environment, or nothing fits.
    """
    lm, environment = problem.reference, problem.environment
    task_of = training_task(environment, "tree")
    known = problem.train_ends(outcomes, weigher("visits"), 1.0)
    ways = [way for tree, ends in known for way in trajectories(tree, ends)]
    fit: list[tuple[tuple[Row, ...], Any]] = []
    for way in ways:
        chosen = decisions(environment, task_of(way.task), way.actions)
        prompts = [lm.prompt(state) for state, _ in chosen]
        rows = tuple(
            (ids, lm.action_ids(prompt, action))
            for (prompt, ids), (_, action) in zip(prompts, chosen, strict=True)
        )
        if max(len(prompt) + len(action) for prompt, action in rows) <= lm.context:
            fit.append((rows, way))
    if not fit:
        raise QvlibError(
            f"no trajectory of the trees fits the model's context of {lm.context} tokens; use a "
            "model with a longer one or a shorter prompt style"
        )
    mean = sum(way.visits for _, way in fit) / len(fit)
    return [Steps(rows, way.value, way.visits / mean) for rows, way in fit], len(ways) - len(fit)


def fit_trajectories(problem: Problem, training: Training, loss: Loss) -> Fitted:
    """The whole of OREO: encode, train, judge on held-out pairs.

    Raises:
        QvlibError: as ``encoded``, training diverged, or a checkpoint cannot be read or written.
    """
    lm = problem.reference
    ways, dropped = encoded(problem)
    policy, below = (copy.deepcopy(lm.model).eval() for _ in range(2))
    head = Head((heads.width_of(lm), 1), problem.seed).to(lm.model.device, lm.model.dtype)
    both = torch.nn.ModuleDict({"policy": policy, "value": Headless(below), "head": head})
    curve = descended(
        problem,
        ways,
        both,
        torch.optim.AdamW(both.parameters(), lr=training.lr, weight_decay=0.0, fused=True),
        partial(_losses, lm, both, training, loss),
        epochs=training.epochs,
        batch=training.batch,
        stream="oreo",
        known_by=asdict(training),
    )
    tuned = lm.tuned(below)
    by_task = ordered_by_task(problem, heads.HeadScorer(headless(tuned), head.eval()))
    steps = sum(len(way.rows) for way in ways)
    facts = heads.facts_of(problem, [], by_task, dropped) | {"pairs": len(ways), "steps": steps}
    if by_task:
        accuracy = facts["held_out_accuracy"]
        curve.append(row(len(curve), "held-out", None, accuracy, facts["held_out_pairs"]))
    card = Card(
        "transformers",
        ("step-level-q-value", "value-head", "oreo"),
        "An estimate of the best that can be reached after an action, less beta nats of going away "
        "from the agent, in units of reward.",
        f"{training.method}; a policy, and a model and a head, rate {training.lr:g}, "
        f"{training.epochs} epochs of {len(ways)} trajectories with {steps} actions",
    )
    return Fitted(lambda folder: heads.save(folder, head, tuned), curve, facts, card)


def _losses(
    lm: Any,
    both: torch.nn.ModuleDict,
    training: Training,
    loss: Loss,
    batch: Sequence[Steps],
    seen: list[float],
    what: str,
) -> Iterator[torch.Tensor]:
    """A batch's weighted mean loss in shares, one a pass; ``seen`` gets their values."""
    for part in _parts(batch, lm.batch_tokens):
        rows, sizes = [row for way in part for row in way.rows], [len(way.rows) for way in part]
        ours, tokens, mask = token_log_probs(both["policy"], rows, lm.end)
        with torch.no_grad():
            theirs = token_log_probs(lm.model, rows, lm.end)[0]
        apart = (ours - theirs) * mask[..., None]
        ratios = apart.gather(2, tokens[..., None])[..., 0].sum(1).split(sizes)
        apart, counts = (ours.exp() * apart).sum((1, 2)).split(sizes), mask.sum(1).split(sizes)
        values = both["head"](hidden_around(both["value"], rows, lm.end))[..., 0].split(sizes)
        share = torch.zeros((), dtype=values[0].dtype, device=values[0].device)
        for i, way in enumerate(part):
            before, after = values[i].unbind(1)
            terms = loss(ratios[i], before, after, way.value)
            kl = apart[i].sum() / counts[i].sum()  # a token
            share = share + way.weight * (sum(terms) + training.kl * kl) / len(batch)
        must_be_finite(share.detach(), what, f"lower fit_lr (now {training.lr:g})")
        seen.append(share.item())
        yield share


def _parts(batch: Sequence[Steps], tokens: int) -> Iterator[list[Steps]]:
    """Trajectories in the order of the batch, cut where a pass would be longer than ``tokens``."""
    part: list[Steps] = []
    longest = rows = 0
    for way in batch:
        wide = max(len(prompt) + len(action) for prompt, action in way.rows)
        if part and max(longest, wide) * (rows + len(way.rows)) > tokens:
            yield part
            part, longest, rows = [], 0, 0
        part.append(way)
        longest, rows = max(longest, wide), rows + len(way.rows)
    yield part
