"""Temporal differences on trees: two critics Q and V each, their target networks, one backup.

Rewards are 0 before an end. An end, a node without visited children, is worth what it found
(``step_values.found``): its reward, not discounted, or what is left of a rollout's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch

from qvlib.base.seeding import generator
from qvlib.core.step_values import By, Siblings, found, shares, siblings, weigher
from qvlib.estimators.estimator import Problem
from qvlib.estimators.head_loop import OutputsOf
from qvlib.estimators.head_settings import HeadSettings
from qvlib.estimators.heads import Group, grouped, new_head
from qvlib.models.heads import Beside

CRITICS = ("q1", "q2", "v1", "v2")  # the columns of the heads' outputs


class Taken(NamedTuple):
    """An action: the actions from the first state up to it, what it found, its share of V."""

    path: tuple[str, ...]
    value: float
    share: float


def taken(group: Siblings, by: By) -> list[Taken]:
    """The visited actions of a state, with their ``step_values.shares``."""
    each = zip(group.actions, group.values, shares(group, by), strict=True)
    return [Taken((*group.path, action), value, share) for action, value, share in each]


def backup(
    outputs: torch.Tensor,
    actions: Sequence[Taken],
    after: Sequence[torch.Tensor | None],
    discount: float,
) -> torch.Tensor:
    """What a state's critics are fitted to, [1 + n, 2]: V of both, then Q of both for each action.

    V_i -> sum_a share(a) Q_i'(s, a), of which the published codes take one a; Q_i -> value at an
    end, else discount * V_i'(s'): each critic by its own target network. outputs: of the target
    networks, [1 + n, 4], the state's row first; after: their row [4] of the state that an action
    leads to, None at an end.
    """
    rows = [outputs.new_tensor([action.share for action in actions]) @ outputs[1:, :2]]
    for action, state in zip(actions, after, strict=True):
        rows.append(outputs.new_full((2,), action.value) if state is None else discount * state[2:])
    return torch.stack(rows)


class Targets:
    """The target networks, a running mean of what is trained, and the backup by them."""

    def __init__(
        self,
        discount: float,
        tau: float,
        groups: Sequence[Group],
        model: torch.nn.Module,
        head: torch.nn.Module,
        outputs_of: OutputsOf,
    ) -> None:
        self._online = torch.nn.ModuleDict({"model": model, "head": head})
        self.network = copy.deepcopy(self._online).requires_grad_(False)
        self._discount, self._tau, self._outputs_of = discount, tau, outputs_of
        self._states = {(g.task, g.targets[0].path[:-1]): g for g in groups}

    @torch.no_grad()
    def __call__(self, batch: Sequence[Group]) -> list[torch.Tensor]:
        after = [[self._states.get((g.task, step.path)) for step in g.targets] for g in batch]
        asked = {id(g): g for g in (*batch, *chain(*after)) if g is not None}
        parts = self._outputs_of(self.network["model"], self.network["head"], list(asked.values()))
        outputs = dict(zip(asked, chain.from_iterable(parts), strict=True))
        return [
            backup(
                outputs[id(group)],
                group.targets,
                [None if state is None else outputs[id(state)][0] for state in states],
                self._discount,
            )
            for group, states in zip(batch, after, strict=True)
        ]

    @torch.no_grad()
    def follow(self) -> None:
        """Polyak: target <- (1 - tau) target + tau online, each weight."""
        both = zip(self.network.parameters(), self._online.parameters(), strict=True)
        for target, online in both:
            target.lerp_(online, self._tau)


def transitions(problem: Problem, by: By, discount: float) -> list[Group]:
    """All states of the trees of training tasks, each group the state itself and its actions.

    Raises:
        QvlibError: as ``heads.grouped``.
    """
    known = problem.train_ends(found, weigher(by), discount)
    steps = chain.from_iterable(siblings(tree, ends) for tree, ends in known)
    groups = grouped(problem, steps, partial(taken, by=by))
    end = problem.reference.end  # by itself an action that is read at the end of its prompt
    return [replace(group, replies=((end,), *group.replies)) for group in groups]


def new_critics(problem: Problem, settings: HeadSettings) -> Beside:
    """Untrained heads ``CRITICS``, each drawn by itself."""
    seeds = {name: int(generator(problem.seed, name).integers(2**31)) for name in CRITICS}
    return Beside({name: new_head(problem.reference, settings, 1, seeds[name]) for name in CRITICS})
