"""HotPotQA (Yang et al. 2018, arXiv 1809.09600) over a fixed corpus.

The rules are those of ReAct's environment (arXiv 2210.03629), as pure functions of immutable
states.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from qvlib.base.errors import QvlibError
from qvlib.core.types import State, Step, Task
from qvlib.environments.hotpotqa import files
from qvlib.environments.hotpotqa.corpus import Corpus, pieces
from qvlib.environments.hotpotqa.metric import Score, score
from qvlib.environments.hotpotqa.questions import SPLITS
from qvlib.environments.hotpotqa.splits import split_tasks

ADMISSIBLE = ("search[<title>]", "lookup[<keyword>]", "finish[<answer>]", "think[<thought>]")
MISS, NO_MORE, REFERS = "Could not find ", "No more results.\n", "may refer to:"
SHOWN = 5  # pieces of an article that a search shows
_ACTION = re.compile(r"(search|lookup|finish|think)\[(.*)\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the original keeps between steps.

    title: the open article; keyword, results, position: of the last lookup, its hits and how many
    of them were shown. answer, score: after ``finish`` only.
    """

    title: str | None = None
    keyword: str | None = None
    results: tuple[str, ...] = ()
    position: int = 0
    answer: str | None = None
    score: Score | None = None


@dataclass(frozen=True)
class HotPotQA:
    """Questions over a corpus, after ``Environment`` of ``qvlib.core.types``.

    The reward is exact match, 0 or 1; F1 stands beside it in ``state.world.score``. A refused
    action counts as a step, as in the original: it shows ``Invalid action: ...``, adds to the
    history and leaves all else as it was. As in the original too, actions work after ``finish``;
    agents stop at ``done``.

    splits: split -> tasks; skipped: questions left out because a later split asks about the same
        article.
    """

    corpus: Corpus = field(repr=False)
    splits: Mapping[str, Sequence[Task]] = field(repr=False)
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    skipped: int = 0
    max_steps: int = 7
    timeout_value: float = -1.0
    name: str = "hotpotqa"

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of ``train``, ``dev`` or ``test``, in a fixed order.

        Raises:
            QvlibError: no such split, or no question fell into it.
        """
        if split not in SPLITS:
            raise QvlibError(f"split {split!r}: the splits are {', '.join(SPLITS)}")
        if not self.splits[split]:
            raise QvlibError(
                f"split {split!r} is empty: no question fell into it; "
                "raise its share or load more questions"
            )
        return self.splits[split]

    def reset(self, task: Task) -> State:
        """The question; no article is open."""
        return State(task, f"Question: {task.instruction}", admissible=ADMISSIBLE, world=Reading())

    def step(self, state: State, action: str) -> State:
        """The state after an action; the outer white space of ``action`` does not matter."""
        verb, argument = parse(action)
        world = replace(state.world, answer=None, score=None)
        if verb == "search":
            observation, world = self._search(world, argument)
        elif verb == "lookup":
            observation, world = self._look_up(world, argument)
        elif verb == "finish":
            world = replace(world, answer=argument, score=score(argument, state.task.goal.answer))
            observation = f"Episode finished, reward = {int(world.score.exact)}\n"
        else:
            observation = "Nice thought." if verb else f"Invalid action: {action.strip()}"
        reward = float(world.score.exact) if world.score else 0.0
        return State(
            state.task,
            observation,
            (*state.history, Step(action, observation)),
            ADMISSIBLE,
            reward,
            verb == "finish",
            bool(verb),
            world,
        )

    def accepts(self, state: State, action: str) -> bool:
        """False if the action would be refused, or the history tells that it shows nothing new.

        That is: a search of the open article or one that missed before, a lookup before any article
        is open or all of whose results were shown since it was, a thought thought before. What
        misses for the first time is
        accepted: that there is nothing to find is learnt by trying.
        """
        verb, argument = parse(action)
        world: Reading = state.world
        if verb == "search":
            title = self._hit(argument)
            if title is not None:
                return title != world.title
            missed, _ = self._search(world, argument)
            return all(step.observation != missed for step in state.history)
        if verb == "lookup":
            return world.title is not None and self._unseen(state, argument)
        if verb == "think":
            return all(parse(step.action) != (verb, argument) for step in state.history)
        return verb == "finish"

    def data_hashes(self) -> dict[str, str]:
        """File name -> sha256 of every file read, for manifests."""
        return dict(self.hashes)

    def _hit(self, entity: str) -> str | None:
        """The title a search opens; an article that only refers to others is not opened."""
        title = self.corpus.find(entity)
        return None if title is None or REFERS in self.corpus.text(title) else title

    def _search(self, world: Reading, entity: str) -> tuple[str, Reading]:
        title = self._hit(entity)
        if title is not None:
            return " ".join(pieces(self.corpus.text(title))[:SHOWN]), Reading(title)
        asked = entity if self.corpus.find(entity) is None else f"[{entity}]"
        return f"{MISS}{asked}. Similar: {list(self.corpus.similar(entity))}.", world

    def _look_up(self, world: Reading, keyword: str) -> tuple[str, Reading]:
        if keyword != world.keyword:
            world = replace(
                world, keyword=keyword, results=self._results(world.title, keyword), position=0
            )
        if world.position >= len(world.results):
            return NO_MORE, world
        return _result(world.results, world.position), replace(world, position=world.position + 1)

    def _results(self, title: str | None, keyword: str) -> tuple[str, ...]:
        text = "" if title is None else self.corpus.text(title)
        return tuple(piece for piece in pieces(text) if keyword.lower() in piece.lower())

    def _unseen(self, state: State, keyword: str) -> bool:
        """Has the open article a result, or the lack of any, not shown since it was opened?"""
        already = set()
        for step in reversed(state.history):
            verb, argument = parse(step.action)
            if verb == "search" and self._hit(argument) is not None:
                break
            if (verb, argument) == ("lookup", keyword):
                already.add(step.observation)
        results = self._results(state.world.title, keyword)
        return (
            not already.issuperset(_result(results, i) for i in range(len(results)))
            if results
            else NO_MORE not in already
        )


def _result(results: Sequence[str], at: int) -> str:
    return f"(Result {at + 1} / {len(results)}) {results[at]}"


def parse(action: str) -> tuple[str, str]:
    """``verb[argument]`` -> verb and argument, untrimmed; two empty texts for other forms."""
    match = _ACTION.fullmatch(action.strip())
    return (match[1], match[2]) if match else ("", "")


def build(
    data_dir: str | Path,
    *,
    max_steps: int = 7,
    timeout_value: float = -1.0,
    dev_share: float = 0.1,
    test_share: float = 0.3,
    seed: int = 0,
) -> HotPotQA:
    """HotPotQA on a folder of data files (``files`` says which).

    seed: draws the splits where the files name none.

    Raises:
        QvlibError: whatever is wrong with the files or the shares.
    """
    loaded = files.load(data_dir)
    splits = split_tasks(loaded.questions, dev_share, test_share, seed)
    return HotPotQA(
        loaded.corpus,
        splits,
        loaded.data_hashes(),
        len(loaded.questions) - sum(map(len, splits.values())),
        max_steps,
        timeout_value,
    )
