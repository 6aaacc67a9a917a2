"""Whole trajectories against each other: which of a tree, as token ids, their log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from os.path import commonprefix
from typing import Any

import torch

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import decisions
from qvlib.core.trees import check_tree, paths
from qvlib.core.types import Environment, State
from qvlib.estimators.data import action_log_probs, encode, training_task
from qvlib.estimators.estimator import Fitted, Problem
from qvlib.estimators.step_dpo_loop import train
from qvlib.estimators.tuned import TunedSettings
from qvlib.estimators.tuning import fit_by_loop, options
from qvlib.models.local import Ids, LocalModel

Steps = tuple[tuple[Ids, Ids], ...]
"""(prompt, action) token ids of each step, end tokens included."""
Told = Callable[[State], State]


def as_it_is(state: State) -> State:
    """The state."""
    return state


@dataclass(frozen=True, slots=True)
class TrajectoryIds:
    """Two trajectories of a task without the steps that both begin with: those cancel."""

    chosen: Steps
    rejected: Steps

    @property
    def prompt(self) -> Ids:
        """The prompt of the state in which they part."""
        return (self.chosen or self.rejected)[0][0]

    @property
    def longest(self) -> int:
        """Tokens of the longest step."""
        return max(len(prompt) + len(action) for prompt, action in self.chosen + self.rejected)

    @property
    def sequences(self) -> int:
        """Steps, each a sequence of its own."""
        return len(self.chosen) + len(self.rejected)


def best_and_worst(
    tree: Mapping[str, Any], max_steps: int
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The actions of the best and of the worst episode in a tree; None where no two differ.

    Episodes are the visited nodes that end one, by themselves or after ``max_steps``. One is worth
    the node's value: the reward, or ``timeout_value`` where it is cut off. Among equals the
    shortest, then the first.

    Raises:
        QvlibError: as ``check_tree``.
    """
    check_tree(tree)
    path = paths(tree)
    ends = [
        (row["value"], path[row["node"]])
        for row in tree["nodes"]
        if row["visits"] and (row.get("terminal") or len(path[row["node"]]) >= max_steps)
    ]
    if not ends:
        return None
    best = max(ends, key=lambda end: (end[0], -len(end[1])))
    worst = min(ends, key=lambda end: (end[0], len(end[1])))
    return (best[1], worst[1]) if best[0] > worst[0] else None


def encode_trajectories(
    environment: Environment,
    lm: LocalModel,
    trees: Iterator[Mapping[str, Any]],
    told: Told = as_it_is,
) -> list[TrajectoryIds]:
    """The best against the worst trajectory of each tree that has two, their states replayed.

    told: what is read in the place of a state.

    Raises:
        QvlibError: a tree's task is no training task, or no tree has two.
    """
    task_of, found = training_task(environment, "tree"), []
    for tree in trees:
        both = best_and_worst(tree, environment.max_steps)
        if both is None:
            continue
        task = task_of(tree["task"])
        shared = len(commonprefix(both))  # noqa: RUF071 - of actions, not of paths
        found.append(TrajectoryIds(*(_steps(environment, lm, task, p, shared, told) for p in both)))
    if not found:
        raise QvlibError(
            "no tree has two visited ends of different worth, so no trajectory is better than "
            "another; raise iterations or train_tasks, or take an estimator that compares steps"
        )
    return found


def _steps(
    environment: Environment, lm: LocalModel, task: Any, path: Any, skip: int, told: Told
) -> Steps:
    steps = []
    for state, action in decisions(environment, task, path)[skip:]:
        prompt, ids = lm.prompt(told(state))
        steps.append((ids, lm.action_ids(prompt, action)))
    return tuple(steps)


def trajectory_log_probs(
    model: torch.nn.Module, rows: Sequence[TrajectoryIds], rule: str, pad: int, packed: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """log pi of the chosen and of the rejected trajectories in nats, [B] each, with gradients.

    The sum over their steps of each action's: the ``sum`` over its tokens, or their ``mean``.
    """
    sides = [side for row in rows for side in (row.chosen, row.rejected)]
    each = action_log_probs(model, list(chain(*sides)), rule, pad)
    owner = [i for i, side in enumerate(sides) for _ in side]
    summed = each.new_zeros(len(sides)).index_add(0, torch.tensor(owner, device=each.device), each)
    chosen, rejected = summed.view(-1, 2).unbind(1)
    return chosen, rejected


def tuned_on_trajectories(
    problem: Problem, settings: TunedSettings, told: Told
) -> tuple[LocalModel, list[dict[str, float]]]:
    """A copy of the reference, tuned as by ``fit_trajectories``, and its curve; nothing is judged.

    Raises:
        QvlibError: as ``encode_trajectories``, nothing fits the model's context, or training
            diverged.
    """
    lm = problem.reference
    rows = encode_trajectories(problem.environment, lm, problem.train_trees(), told)
    how = options(problem, settings)
    return train(lm, rows, (), **how, packed=False, log_probs=trajectory_log_probs)


def fit_trajectories(problem: Problem, settings: TunedSettings, method: str) -> Fitted:
    """Tune on the trees of training tasks, best against worst trajectory, judged on held-out pairs.

    Raises:
        QvlibError: as ``encode_trajectories`` and ``fit_by_loop``.
    """
    environment, lm = problem.environment, problem.reference
    return fit_by_loop(
        problem,
        settings,
        encode_trajectories(environment, lm, problem.train_trees()),
        encode(environment, lm, problem.held_out),
        f"{method}, beta {settings.beta:g}",
        log_probs=trajectory_log_probs,
    )
