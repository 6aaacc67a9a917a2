"""Where an episode on a question fails: search, second hop, form of the answer, or answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qvlib.core.episodes import visited
from qvlib.core.types import Task
from qvlib.environments.hotpotqa.environment import HotPotQA
from qvlib.environments.hotpotqa.metric import normalise
from qvlib.environments.hotpotqa.questions import Question
from qvlib.environments.hotpotqa.reader import reading_order

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "right": "the answer is the gold answer",
    "no answer": "the steps ran out before an answer",
    "search": "answered, but never opened the first supporting article",
    "second hop": "opened the first, but not all the others",
    "answer form": "opened all; the answer shares words with the gold answer or holds it",
    "wrong answer": "opened all and answered something else",
}
EXPLAINED = (
    "The first kind that holds: "
    + "; ".join(f"**{kind}**: {what}" for kind, what in KINDS.items())
    + "."
)


def classify(environment: HotPotQA, task: Task, actions: Sequence[str]) -> tuple[str, float]:
    """(kind of ``KINDS``, F1 of the answer) of an episode; F1 is 0 without an answer.

    Two articles that are compared may be read in any order: the one read first is the first.
    """
    question: Question = task.goal
    states = visited(environment, task, actions)
    opened, end = {state.world.title for state in states[1:]}, states[-1].world
    score = end.score
    if score is None:
        return "no answer", 0.0
    if score.exact:
        return "right", score.f1
    needed = reading_order(question)
    missed = [title for title in needed if title not in opened]
    if missed:
        first = (
            len(missed) == len(needed) if question.kind == "comparison" else missed[0] == needed[0]
        )
        return "search" if first else "second hop", score.f1
    holds = f" {normalise(question.answer)} " in f" {normalise(end.answer)} "
    return "answer form" if holds or score.f1 > 0 else "wrong answer", score.f1


def parts(environment: HotPotQA, task: Task, actions: Sequence[str]) -> dict[str, float]:
    """1 or 0: was one supporting article opened, were two, is the answer right?

    What the question has no supporting articles for is left out.
    """
    states = visited(environment, task, actions)
    needed = task.goal.titles
    found = len({state.world.title for state in states[1:]}.intersection(needed))
    hops = {
        name: float(found >= least)
        for least, name in enumerate(("search", "second hop"), start=1)
        if len(needed) >= least
    }
    return {**hops, "answer": states[-1].reward}


def table(environment: HotPotQA, records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row an arm, in the records' order: exact match, F1 and the share of each kind of end.

    records: ``arm``, ``task`` and ``actions`` of test episodes; the part of an arm's name after a
    slash does not count. An arm whose actions were not kept (``search`` of older runs) is left out.
    """
    import pandas as pd

    tasks = {task.id: task for task in environment.tasks("test")}
    rows = [
        {"arm": record["arm"].partition("/")[0], "episodes": 1, "kind": kind, "F1": f1}
        for record in records
        if len(record["actions"])
        for kind, f1 in (classify(environment, tasks[record["task"]], record["actions"]),)
    ]
    outcomes = pd.DataFrame(rows, columns=["arm", "episodes", "kind", "F1"])
    for kind in KINDS:
        outcomes[kind] = (outcomes["kind"] == kind).astype(float)
    shares = outcomes.groupby("arm", sort=False)[["F1", *KINDS]].mean()
    shares.insert(0, "exact match", shares["right"])
    shares.insert(0, "episodes", outcomes.groupby("arm", sort=False).size())
    return shares.drop(columns="right").reset_index()
