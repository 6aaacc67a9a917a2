"""The data of a run: written or found once, then read; which tasks are used for what."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvlib import environments
from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.core.types import Environment, Task
from qvlib.environments.contract import is_writable
from qvlib.pipeline.params import Params
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage

SPLITS = ("train", "dev", "test")


def prepare_data(params: Params) -> Environment:
    """The environment; on the first call its embedded data are written and its splits checked.

    Raises:
        QvlibError: whatever is wrong with the data files or the splits.
    """
    if is_complete(params, "data"):
        return load_environment(params)
    world = world_of(params)
    with open_stage(params, "data") as stage:
        if not params.world.data_dir and world.make_data is not None:
            world.make_data(params.world, stage.path, params.run.processes)
        environment = environments.make_environment(world, params.world, stage.path)
        splits = {split: environment.tasks(split) for split in SPLITS}
        check_texts(splits)
        check_disjoint(splits)
        stage.manifest["data_hashes"] = environments.data_hashes(world, environment)
        stage.finish(
            splits=[split_row(split, tasks) for split, tasks in splits.items()],
            skipped_goals=getattr(environment, "skipped", 0),
        )
    return environment


def load_environment(params: Params) -> Environment:
    """The environment on the data that ``prepare_data`` left; nothing is written.

    Raises:
        QvlibError: the data are not prepared, or the files have changed since.
    """
    stage, world = read_stage(params, "data"), world_of(params)
    environment = environments.make_environment(world, params.world, stage.path)
    if stage.manifest["data_hashes"] != environments.data_hashes(world, environment):
        raise QvlibError(
            f"the data files of {stage.path.name} have changed since the run began; restore them, "
            "or delete that folder and those built on it"
        )
    return environment


def world_of(params: Params) -> environments.World:
    """What is known of the run's kind of environment."""
    return environments.world_of(params.world.environment)


def data_folders(params: Params) -> list[Path]:
    """The folders that building the environment reads."""
    stage: Stage = read_stage(params, "data")
    return [stage.path, *([resolve(params.world.data_dir)] if params.world.data_dir else [])]


def check_texts(splits: dict[str, Sequence[Task]]) -> None:
    """Raise QvlibError if a task's id, instruction or group is no text that files can hold."""
    for task in (task for tasks in splits.values() for task in tasks):
        for name in ("id", "instruction", "group"):
            value = getattr(task, name)
            if not is_writable(value):
                raise QvlibError(
                    f"task {task.id!r:.80}: its {name}, {value!r:.60}, is no text, or holds half a "
                    "surrogate pair, which no file can hold; mend it in the data or the environment"
                )


def check_disjoint(splits: dict[str, Sequence[Task]]) -> None:
    """Raise QvlibError if two splits share a task or a group (a product, a game)."""
    groups = {split: {task.group for task in tasks} for split, tasks in splits.items()}
    names = list(splits)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            shared = groups[a] & groups[b]
            if shared:
                raise QvlibError(
                    f"splits {a} and {b} share {len(shared)} groups, such as {min(shared)!r}; "
                    "split by group, so that test tasks are unseen"
                )


def split_row(split: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """Size of a split, different instructions and a hash of its task ids, for tables."""
    ids = "\n".join(sorted(t.id for t in tasks))
    return {
        "split": split,
        "tasks": len(tasks),
        "groups": len({t.group for t in tasks}),
        "instructions": len({t.instruction for t in tasks}),
        "ids": hashlib.blake2b(ids.encode(), digest_size=4).hexdigest(),
    }


@dataclass(frozen=True)
class Uses:
    """Which tasks of the splits a run uses for what; no task has two uses.

    search: the tasks of this round; where there is a curriculum, those it chooses among.
    """

    demonstrations: Sequence[Task]
    other_demonstrations: Sequence[Task]
    search: Sequence[Task]
    dev: Sequence[Task]
    test: Sequence[Task]


def uses(params: Params, environment: Environment) -> Uses:
    """Deal the tasks out: searches from the end of train, a block a round, demonstrations first.

    Raises:
        QvlibError: a split is too small for what the parameters ask.
    """
    train, dev, test = (environment.tasks(split) for split in SPLITS)
    first = params.agent.demonstrations
    second = first + params.other_agent.other_demonstrations
    per_round = params.search.train_tasks
    searched = params.pool or params.search.rounds * per_round
    ablations, evaluation = params.ablations, params.evaluation
    asked = {
        "train": (
            second + searched,
            "demonstrations + other_demonstrations + "
            + ("curriculum_pool" if params.pool else "rounds * train_tasks"),
        ),
        "dev": (
            max(
                ablations.rule_tasks,
                ablations.trial_tasks
                if ablations.grid or ablations.compare or ablations.baselines
                else 0,
            ),
            "rule_tasks or trial_tasks",
        ),
        "test": (evaluation.test_tasks, "test_tasks"),
    }
    test = _unseen(test, evaluation.test_skip)
    world = world_of(params)
    for tasks, (split, (count, names)) in zip((train, dev, test), asked.items(), strict=True):
        if count > len(tasks):
            own = ":" in params.world.environment
            share = f" or {split}_share" if split != "train" and not own else ""
            more = environments.names_of(world, params.world).more
            left = " left after test_skip" if split == "test" and evaluation.test_skip else ""
            raise QvlibError(
                f"{names} = {count}, but the {split} split has {len(tasks)} tasks{left}; lower "
                f"them, or {more}{share}"
            )
    start = len(train) - searched
    return Uses(
        train[:first],
        train[first:second],
        train[start : start + (params.pool or per_round)],
        dev,
        test[: evaluation.test_tasks],
    )


def _unseen(tasks: Sequence[Task], skipped: int) -> Sequence[Task]:
    """The tasks after the first ones that share no group (product, article, game) with them."""
    if not skipped:
        return tasks
    seen = {task.group for task in tasks[:skipped]}
    return tuple(task for task in tasks[skipped:] if task.group not in seen)
