"""Tasks from goals, and their division into train, dev and test by product."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.core.types import Task
from qvlib.environments.webshop.goals import Goal, Goals

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, eq=False)
class Tasks(Sequence[Task]):
    """The tasks of a split, each made when it is asked for; a slice is a tuple.

    places: the index of each task's goal, counted through all ``goals``.
    """

    goals: tuple[Goals, ...]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: int | slice) -> Task | tuple[Task, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(len(self))[at])
        place = int(self.places[at])
        for goals in self.goals:
            if place < len(goals):
                return make_task(goals[place])
            place -= len(goals)
        raise IndexError(at)


def make_task(goal: Goal) -> Task:
    """The task of a goal: ``webshop-<asin>-<k>``, or ``webshop-<asin>-h<k>`` for human goals."""
    mark = "h" if goal.kind == "human" else ""
    return Task(f"webshop-{goal.asin}-{mark}{goal.nth}", goal.instruction, goal.asin, goal)


def split_of(asin: str, dev_share: float, test_share: float, seed: int) -> str:
    """The split of a product: by the product and the seed alone, not the catalogue around it."""
    digest = hashlib.blake2b(f"split\x1f{seed}\x1f{asin}".encode(), digest_size=8).digest()
    u = int.from_bytes(digest, "little") / 2**64
    return "test" if u < test_share else "dev" if u < test_share + dev_share else "train"


def split_tasks(
    goals: Sequence[Goals], dev_share: float, test_share: float, seed: int
) -> dict[str, Tasks]:
    """The tasks of each split, shuffled by its name; goals without attributes make none.

    Raises:
        QvlibError: shares that leave nothing to train on.
    """
    if dev_share < 0 or test_share < 0 or dev_share + test_share >= 1:
        raise QvlibError(
            f"dev_share {dev_share} and test_share {test_share} must be at least 0 and sum to less "
            "than 1"
        )
    kinds = tuple(sorted(goals, key=lambda g: g.kind))
    places: dict[str, array] = {name: array("q") for name in SPLITS}
    before = 0
    for kind in kinds:
        index = array("q", bytes(8 * len(kind)))  # number -> index
        for i, number in enumerate(kind.numbers):
            index[number] = before + i
        for source, start, end in zip(kind.sources, kind.starts, kind.starts[1:], strict=False):
            if source.attributes:
                places[split_of(source.product.asin, dev_share, test_share, seed)].extend(
                    index[start:end]
                )
        before += len(kind)
    return {
        name: Tasks(
            kinds,
            array("q", (dealt[i] for i in generator(seed, "order", name).permutation(len(dealt)))),
        )
        for name, dealt in places.items()
    }
