"""The environment of a run, its splits, and which tasks are used for what."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qvlib import environments
from qvlib.base.errors import QvlibError
from qvlib.core.types import Environment, Task
from qvlib.pipeline.params import Params
from qvlib.runs.stage import is_complete, open_stage, read_stage


def world(params: Params) -> Environment:
    """The environment with its tasks; embedded data are written first where needed.

    Raises:
        QvlibError: whatever is wrong with the data files or the splits.
    """
    if not is_complete(params, "data"):
        with open_stage(params, "data") as stage:
            if not params.data_dir:
                environments.make_data(params, stage.path)
            environment = environments.make(params, stage.path)
            splits = {s: environment.tasks(s) for s in ("train", "dev", "test")}
            check_disjoint(splits)
            stage.manifest["data_hashes"] = environments.data_hashes(params, environment)
            stage.finish(
                splits=[split_row(s, t) for s, t in splits.items()],
                skipped_goals=getattr(environment, "skipped", 0),
            )
            return environment
    stage = read_stage(params, "data")
    environment = environments.make(params, stage.path)
    if stage.manifest["data_hashes"] != environments.data_hashes(params, environment):
        raise QvlibError(
            f"the data files of {stage.path.name} have changed since the run began; restore them, "
            f"or delete that folder and those built on it"
        )
    return environment


def check_disjoint(splits: dict[str, Sequence[Task]]) -> None:
    """Raise QvlibError if two splits share a task or a group (a product, a game)."""
    names = list(splits)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            shared = {t.group for t in splits[a]} & {t.group for t in splits[b]}
            if shared:
                raise QvlibError(
                    f"splits {a} and {b} share {len(shared)} groups, such as {min(shared)!r}; "
                    "split by group, so that test tasks are unseen"
                )


def split_row(split: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """Size of a split and a hash of its task ids, for tables."""
    ids = "\n".join(sorted(t.id for t in tasks))
    return {
        "split": split,
        "tasks": len(tasks),
        "groups": len({t.group for t in tasks}),
        "ids": hashlib.blake2b(ids.encode(), digest_size=4).hexdigest(),
    }


@dataclass(frozen=True)
class Uses:
    """Which tasks of the splits a run uses for what; no task has two uses."""

    demonstrations: Sequence[Task]
    other_demonstrations: Sequence[Task]
    search: Sequence[Task]
    dev: Sequence[Task]
    test: Sequence[Task]


def uses(params: Params, environment: Environment) -> Uses:
    """Deal the tasks out: searches from the end of train, a block a round, demonstrations from its beginning.

    Raises:
        QvlibError: a split is too small for what the parameters ask.
    """
    train, dev, test = (environment.tasks(split) for split in ("train", "dev", "test"))
    first, second = params.demonstrations, params.demonstrations + params.other_demonstrations
    searched = params.rounds * params.train_tasks
    asked = {
        "train": (
            second + searched,
            "demonstrations + other_demonstrations + rounds * train_tasks",
        ),
        "dev": (
            max(params.rule_tasks, params.trial_tasks if params.grid else 0),
            "rule_tasks or trial_tasks",
        ),
        "test": (params.test_skip + params.test_tasks, "test_skip + test_tasks"),
    }
    for tasks, (split, (count, names)) in zip((train, dev, test), asked.items(), strict=True):
        if count > len(tasks):
            share = (
                f" or {split}_share" if split != "train" and ":" not in params.environment else ""
            )
            raise QvlibError(
                f"{names} = {count}, but the {split} split has {len(tasks)} tasks; lower them, "
                f"or {environments.words(params).more}{share}"
            )
    start = len(train) - searched
    return Uses(
        train[:first],
        train[first:second],
        train[start : start + params.train_tasks],
        dev,
        test[params.test_skip : params.test_skip + params.test_tasks],
    )
