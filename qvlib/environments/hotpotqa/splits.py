"""Tasks from questions, and their division into train, dev and test by supporting article.

Unseen means: no article that supports a test question supports a dev or train question, and none of
dev supports one of train. Questions that share a supporting article, directly or through others,
make a group, and groups are dealt out whole, in a drawn order that fills the shares. Where that
cannot be (the file names splits of its own, or one group holds more than ``LARGEST`` of all
questions and than ``FEW``), the train and dev questions in the way are left out and counted. Any
article may be read in every split: what is unseen is what the questions ask about.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.core.types import Task
from qvlib.environments.hotpotqa.questions import SPLITS, Question

LARGEST, FEW = 0.2, 20


def split_tasks(
    questions: Sequence[Question], dev_share: float, test_share: float, seed: int
) -> dict[str, tuple[Task, ...]]:
    """The tasks of each split, shuffled by a draw of the split's name.

    Raises:
        QvlibError: shares that leave nothing to train on.
    """
    if dev_share < 0 or test_share < 0 or dev_share + test_share >= 1:
        raise QvlibError(
            f"dev_share {dev_share} and test_share {test_share} must be at least 0 and sum to less "
            "than 1"
        )
    groups = group(questions)
    sizes = Counter(groups.values())
    whole = {name for name, size in sizes.items() if size <= max(LARGEST * len(questions), FEW)}
    units = {q.id: groups[q.id] if groups[q.id] in whole else q.id for q in questions}
    drawn = _deal(
        Counter(units[q.id] for q in questions if not q.split), dev_share, test_share, seed
    )
    places: dict[str, list[Question]] = {name: [] for name in SPLITS}
    for question in questions:
        places[question.split or drawn[units[question.id]]].append(question)
    taken: set[str] = set()
    for name in reversed(SPLITS):  # test keeps all its questions, train gives way
        places[name] = [q for q in places[name] if taken.isdisjoint(q.titles)]
        taken.update(title for q in places[name] for title in q.titles)
    groups = group(q for kept in places.values() for q in kept)
    return {
        name: tuple(
            make_task(kept[i], groups[kept[i].id])
            for i in generator(seed, "order", name).permutation(len(kept))
        )
        for name, kept in places.items()
    }


def make_task(question: Question, group: str = "") -> Task:
    """The task of a question, ``hotpotqa-<id>``; without a group it is its own."""
    return Task(f"hotpotqa-{question.id}", question.text, group or question.id, question)


def group(questions: Iterable[Question]) -> dict[str, str]:
    """Question id -> the smallest title of its connected component, else its id."""
    above: dict[str, str] = {}

    def top(title: str) -> str:
        while above.setdefault(title, title) != title:
            above[title] = title = above[above[title]]
        return title

    first = {}
    for question in questions:
        titles = question.titles
        first[question.id] = titles[0] if titles else None
        for title in titles[1:]:
            a, b = sorted((top(titles[0]), top(title)))
            above[b] = a
    return {key: key if title is None else top(title) for key, title in first.items()}


def _deal(
    sizes: Mapping[str, int], dev_share: float, test_share: float, seed: int
) -> dict[str, str]:
    """The split of each group: in an order drawn by name and seed, test fills up, then dev."""

    def drawn(name: str) -> bytes:
        return hashlib.blake2b(f"split\x1f{seed}\x1f{name}".encode(), digest_size=8).digest()

    total, before = sum(sizes.values()), 0
    dealt = {}
    for name in sorted(sizes, key=lambda name: (drawn(name), name)):
        u = (before + sizes[name] / 2) / total
        dealt[name] = "test" if u < test_share else "dev" if u < test_share + dev_share else "train"
        before += sizes[name]
    return dealt
