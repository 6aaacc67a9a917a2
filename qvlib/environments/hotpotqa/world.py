"""HotPotQA as a ``World``: its settings, its names, and what it is told of."""

from __future__ import annotations

from pathlib import Path

from qvlib.core.types import State, Task
from qvlib.environments.hotpotqa import failures
from qvlib.environments.hotpotqa.environment import HotPotQA, build, parse
from qvlib.environments.hotpotqa.generator import write_encyclopaedia
from qvlib.environments.hotpotqa.reader import Habits, Reader
from qvlib.environments.hotpotqa.script import Script
from qvlib.environments.hotpotqa.settings import HotPotQASettings
from qvlib.environments.hotpotqa.tour import tour
from qvlib.environments.world import Names, World, common

INSTRUCTIONS = """\
You answer a question by reading an encyclopaedia.
Actions, one at a time:
search[title] opens the article of that title and shows its first sentences, or names similar \
titles.
lookup[words] shows the next sentence of the open article that holds these words.
finish[answer] gives the answer, as short as possible, and ends the task."""

NAMES = Names(
    "groups of questions",
    "raise catalogue_products",
    "Shallow pairs are about the article to begin with; deep ones about where it leads and what "
    "to answer. `search` against `search` is about titles, `finish` against `finish` about "
    "answers, and mixed rows about whether enough was read.",
)


def _built(settings: HotPotQASettings, folder: Path) -> HotPotQA:
    return build(folder, **common(settings))


def _make_data(settings: HotPotQASettings, folder: Path, processes: int = 0) -> None:
    write_encyclopaedia(folder, settings.catalogue_products, settings.catalogue_seed)


def _demonstrator(environment: HotPotQA, errors: float) -> Reader:
    return Reader(environment, Habits().scaled(errors))


def _kind(state: State, action: str) -> str:
    """``search``, ``lookup``, ``think`` or ``answer``; ``other`` is refused."""
    return {"finish": "answer", "": "other"}.get(verb := parse(action)[0], verb)


def _solution(environment: HotPotQA, task: Task) -> str:
    return f"Solution: {task.goal.answer}"


WORLD = World(
    "hotpotqa",
    HotPotQASettings,
    _built,
    INSTRUCTIONS,
    NAMES,
    make_data=_make_data,
    demonstrator=_demonstrator,
    tour=tour,
    failures=(failures.table, failures.EXPLAINED),
    kind=_kind,
    script=Script,
    parts=failures.parts,
    solution=_solution,
)
