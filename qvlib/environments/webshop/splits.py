"""Tasks from goals, and their division into train, dev and test by product."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ...errors import QvlibError
from ...seeding import generator
from ...types import Task
from .goals import Goal

SPLITS = ("train", "dev", "test")


def make_task(goal: Goal) -> Task:
    """The task of a goal; ``webshop-<asin>-<k>`` for synthetic goals, ``webshop-<asin>-h<k>`` for human ones."""
    mark = "h" if goal.kind == "human" else ""
    return Task(f"webshop-{goal.asin}-{mark}{goal.nth}", goal.instruction, goal.asin, goal)


def split_of(asin: str, dev_share: float, test_share: float, seed: int) -> str:
    """The split of a product: depends on the product and the seed alone, not on the catalogue around it."""
    digest = hashlib.blake2b(f"split\x1f{seed}\x1f{asin}".encode(), digest_size=8).digest()
    u = int.from_bytes(digest, "little") / 2**64
    return "test" if u < test_share else "dev" if u < test_share + dev_share else "train"


def split_tasks(goals: Iterable[Goal], dev_share: float, test_share: float, seed: int) -> dict[str, tuple[Task, ...]]:
    """The tasks of each split, shuffled by a draw of the split's name.

    Raises:
        QvlibError: shares that leave nothing to train on.
    """
    if dev_share < 0 or test_share < 0 or dev_share + test_share >= 1:
        raise QvlibError(f"dev_share {dev_share} and test_share {test_share} must be at least 0 and sum to less than 1")
    tasks: dict[str, list[Task]] = {name: [] for name in SPLITS}
    for goal in sorted(goals, key=lambda g: (g.kind, g.number)):
        tasks[split_of(goal.asin, dev_share, test_share, seed)].append(make_task(goal))
    return {name: tuple(found[i] for i in generator(seed, "order", name).permutation(len(found)))
            for name, found in tasks.items()}
