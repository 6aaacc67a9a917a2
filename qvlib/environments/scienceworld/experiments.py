"""Which variations of which tasks make a run's tasks: chosen once and written down.

The simulator tells a task's instruction and its gold actions only after loading it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.seeding import generator
from qvlib.core.types import Task
from qvlib.environments.datafiles import lines
from qvlib.environments.scienceworld.settings import ScienceWorldSettings
from qvlib.environments.scienceworld.simulator import simulator, tidy

FILE = "experiments.jsonl"
SPLITS = ("train", "dev", "test")


def write_experiments(settings: ScienceWorldSettings, folder: Path) -> None:
    """Choose ``game_count`` variations, in turn from all tasks, and write them to ``FILE``.

    Variations keep the splits of ScienceWorld. Tasks take their turns in a drawn order, the same in
    each split, and a split's variations stand in a drawn order too: what is demonstrated, searched
    and tested are all kinds alike.

    Raises:
        QvlibError: Java or the package is not installed.
    """
    env = simulator().env
    test, dev = (
        max(1, round(share * settings.game_count))
        for share in (settings.test_share, settings.dev_share)
    )
    counts = {"train": settings.game_count - test - dev, "dev": dev, "test": test}
    names = _drawn(sorted(env.get_task_names()), settings.catalogue_seed, "kinds")
    asked = [
        (names[i % len(names)], i // len(names), split)
        for split, count in counts.items()
        for i in range(count)
    ]
    loaded = [
        _experiment(env, *variation)
        for variation in tqdm(sorted(asked), desc="loading experiments", unit="task")
    ]
    simulator().forget()  # what it played before is no longer loaded
    lines = [
        line
        for split in SPLITS
        for line in _drawn(
            [row for row in loaded if row and row["split"] == split],
            settings.catalogue_seed,
            "order",
            split,
        )
    ]
    write_atomic(folder / FILE, "".join(json.dumps(line) + "\n" for line in lines))


def _drawn(some: list[Any], *key: Any) -> list[Any]:
    """In an order drawn from a generator of its own."""
    return [some[i] for i in generator(*key).permutation(len(some))]


def _experiment(env: Any, name: str, number: int, split: str) -> dict[str, Any] | None:
    """A task's ``number``-th variation in a split; None where it has fewer."""
    env.load(name, 0)
    there: Mapping[str, Any] = {
        "train": env.get_variations_train,
        "dev": env.get_variations_dev,
        "test": env.get_variations_test,
    }
    variations = there[split]()
    if number >= len(variations):
        return None
    variation = variations[number]
    env.load(name, variation, generateGoldPath=True)
    instruction = tidy(env.server.freeActionTaskDesc()).removeprefix("Task Description:").strip()
    return {
        "task": name,
        "variation": variation,
        "split": split,
        "instruction": instruction,
        "gold": list(env.get_gold_action_sequence()),
    }


def read_experiments(folder: Path) -> dict[str, tuple[Task, ...]]:
    """Split -> tasks; ``task.goal`` is (task, variation, gold actions).

    Raises:
        QvlibError: no such file, or it is not what ``write_experiments`` wrote.
    """
    path = folder / FILE
    tasks_of: dict[str, list[Task]] = {split: [] for split in SPLITS}
    if not path.is_file():
        raise QvlibError(
            f"data_dir {str(folder)!r} holds no {FILE}; leave data_dir empty, and it is made"
        )
    for number, row in lines(path):
        if not _is_experiment(row):
            raise QvlibError(
                f"{path.name}: line {number} is no experiment; "
                "delete the file and leave data_dir empty, and it is made"
            )
        name = f"{row['task']}-{row['variation']}"
        goal = (row["task"], row["variation"], tuple(row["gold"]))
        tasks_of[row["split"]].append(Task(f"scienceworld-{name}", row["instruction"], name, goal))
    return {split: tuple(tasks) for split, tasks in tasks_of.items()}


def _is_experiment(row: Mapping[str, Any]) -> bool:
    gold = row.get("gold")
    return (
        all(isinstance(row.get(key), str) for key in ("task", "instruction"))
        and type(row.get("variation")) is int
        and row.get("split") in SPLITS
        and isinstance(gold, list)
        and all(isinstance(action, str) for action in gold)
    )
