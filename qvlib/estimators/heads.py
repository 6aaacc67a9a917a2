"""Value heads: what they are fitted to, how they are saved, how they score.

An estimator with a head is a loss on a state's actions and a way to read the head's outputs; the
rest is here and in ``head_loop``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import replay
from qvlib.core.step_values import Siblings
from qvlib.core.types import State
from qvlib.estimators.data import PairIds, training_task
from qvlib.estimators.estimator import OpenModel, Problem
from qvlib.estimators.head_settings import HeadSettings
from qvlib.models.heads import Beside, Head, load_head
from qvlib.models.hidden import headless, read_hidden
from qvlib.models.local import Ids, LocalModel

BACKBONE = "backbone"

Read = Callable[[torch.Tensor], torch.Tensor]
"""A head's outputs [N, O] -> scores [N]."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs [n, O], targets [n]) of one state's actions -> its terms [m], whose mean is the loss."""


def first(outputs: torch.Tensor) -> torch.Tensor:
    """The one output as it is."""
    return outputs[..., 0]


@dataclass(frozen=True, slots=True)
class Group:
    """Actions after one prompt, with what each is to be fitted to.

    replies: token ids, end token included. targets: one an action, or one row of numbers an action;
    what the replies hold beside actions has none.
    """

    task: str
    prompt: Ids
    replies: tuple[Ids, ...]
    targets: tuple[Any, ...]

    @property
    def parts(self) -> tuple[tuple[Ids, tuple[Ids, ...]], ...]:
        """(prompt, actions after it)."""
        return ((self.prompt, self.replies),)

    @property
    def longest(self) -> int:
        return len(self.prompt) + max(map(len, self.replies))

    @property
    def size(self) -> int:
        """Tokens of the prompt with all actions, once each."""
        return len(self.prompt) + sum(map(len, self.replies))


@dataclass(frozen=True, slots=True)
class PathIds:
    """The actions along one path, each after its own prompt, for losses that compare states.

    It is asked like a ``Group``.
    """

    task: str
    prompts: tuple[Ids, ...]
    replies: tuple[Ids, ...]
    targets: tuple[Any, ...]

    @property
    def parts(self) -> tuple[tuple[Ids, tuple[Ids, ...]], ...]:
        return tuple((p, (reply,)) for p, reply in zip(self.prompts, self.replies, strict=True))

    @property
    def longest(self) -> int:
        return max(len(p) + len(a) for p, a in zip(self.prompts, self.replies, strict=True))

    @property
    def size(self) -> int:
        return self.longest


Compared = Group | PathIds
"""What a loss is taken of at a time."""

AnyCompared = TypeVar("AnyCompared", Group, PathIds)


def grouped(
    problem: Problem,
    siblings: Iterable[Siblings],
    target: Callable[[Siblings], Sequence[Any]] = lambda group: group.values,
) -> list[Group]:
    """States of trees as token ids, each with its visited actions.

    Raises:
        QvlibError: a tree's task is no training task of the environment.
    """
    ids_of = _ids_of(problem)
    return [Group(g.task, *ids_of(g), tuple(target(g))) for g in siblings]


def encode_paths(problem: Problem, trees: Iterable[Iterable[Siblings]]) -> list[PathIds]:
    """The paths of trees to each last visited action; targets are values.

    trees: the ``siblings`` of each.

    Raises:
        QvlibError: as ``grouped``.
    """
    ids_of, found = _ids_of(problem), []
    for groups in trees:
        task, paths = "", dict[str, tuple[Any, ...]]()
        for group in groups:  # parents first: the path to a state is known, and is not the last
            task, so_far = group.task, paths.pop(group.node, ())
            prompt, replies = ids_of(group)
            for node, reply, value in zip(group.nodes, replies, group.values, strict=True):
                paths[node] = (*so_far, (prompt, reply, value))
        found += [PathIds(task, *zip(*steps, strict=True)) for steps in paths.values()]
    return found


def _ids_of(problem: Problem) -> Callable[[Siblings], tuple[Ids, tuple[Ids, ...]]]:
    """(ids of the prompt, of each action) of a state's actions."""
    task_of = training_task(problem.environment, "tree")
    lm = problem.reference

    def ids_of(group: Siblings) -> tuple[Ids, tuple[Ids, ...]]:
        prompt, ids = lm.prompt(replay(problem.environment, task_of(group.task), group.path))
        return ids, tuple(lm.action_ids(prompt, action) for action in group.actions)

    return ids_of


def of_pairs(rows: Sequence[PairIds], targets: tuple[Any, Any] = (1.0, 0.0)) -> list[Group]:
    """Pairs as groups of two actions, the chosen one first."""
    return [Group("", row.prompt, (row.chosen, row.rejected), targets) for row in rows]


def fitting(lm: LocalModel, groups: Sequence[AnyCompared]) -> list[AnyCompared]:
    """The groups that fit the model's context whole.

    Raises:
        QvlibError: none does.
    """
    fit = [group for group in groups if group.longest <= lm.context]
    if not fit:
        raise QvlibError(
            f"no state of the trees fits the model's context of {lm.context} tokens; use a model "
            "with a longer one or a shorter prompt style"
        )
    return fit


@dataclass(frozen=True)
class HeadScorer:
    """A head on the last hidden states of a model: ``read`` makes scores of its outputs."""

    lm: LocalModel  # headless
    head: Head | Beside
    read: Read = first

    @torch.inference_mode()
    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        prompts = self.lm.prompts(states)
        rows = [
            (ids, self.lm.action_ids(prompt, action))
            for (prompt, ids), candidates in zip(prompts, actions, strict=True)
            for action in candidates
        ]
        if not rows:
            return [[] for _ in states]
        hidden = read_hidden(self.lm, rows).to(next(self.head.parameters()).dtype)
        values = iter(self.read(self.head(hidden)).tolist())
        return [[next(values) for _ in candidates] for candidates in actions]


def save(folder: Path, head: Head | Beside, backbone: LocalModel | None) -> None:
    """Write the head, and the tuned model below it where there is one."""
    if backbone is not None:
        backbone.save(folder / BACKBONE)
    folder.mkdir(parents=True, exist_ok=True)
    head.save(folder)


def scorer(
    folder: Path,
    reference: LocalModel,
    open_model: OpenModel,
    read: Read = first,
    load: Callable[[Path], Head | Beside] = load_head,
) -> HeadScorer:
    """What ``save`` wrote; without a model of its own it reads the reference's hidden states."""
    lm = reference
    if (folder / BACKBONE).is_dir():
        lm = open_model(folder / BACKBONE, str(reference.model.dtype).removeprefix("torch."))
    return HeadScorer(headless(lm), load(folder).to(lm.model.device), read)


def width_of(lm: LocalModel) -> int:
    """D, the size of the model's hidden states."""
    return int(lm.model.config.get_text_config().hidden_size)


def new_head(lm: LocalModel, settings: HeadSettings, outputs: int, seed: int) -> Head:
    """An untrained head of the settings' form for the model, in its precision, on its device."""
    sizes = (width_of(lm), *filter(None, (settings.head_width,)), outputs)
    head = Head(sizes, seed, settings.head_init == "zero")
    return head.to(lm.model.device, lm.model.dtype)


def facts_of(
    problem: Problem,
    groups: Sequence[Compared],
    by_task: Mapping[str, Sequence[float]],
    dropped: int = 0,
) -> dict[str, Any]:
    """The facts of ``Fitted``, of a model that was fitted to states.

    by_task: ``estimators.data.ordered_by_task``. dropped: groups beside these that do not fit the
    model's context. ``pairs`` counts states (what a loss is taken of at a time), ``steps`` actions.
    """
    held = sum(count for _, count in by_task.values())
    right = sum(hit for hit, _ in by_task.values())
    return {
        "pairs": len(groups),
        "steps": sum(len(group.targets) for group in groups),
        "held_out_pairs": int(held),
        "held_out_by_task": dict(by_task),
        "held_out_accuracy": right / held if held else None,
        "dropped_pairs": dropped,
        "dropped_held_out_pairs": len(problem.held_out) - int(held),
    }
