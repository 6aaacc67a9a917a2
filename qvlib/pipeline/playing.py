"""How episodes are played: by workers, of one chain or of many, such as the cells of a grid.

Cells with the same agent are played by the same workers, a share of the tasks each. In one state
they draw the same candidates, so that a worker samples those once, and each Q model only scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from qvlib.agents.arm import Player
from qvlib.agents.arms import BASE
from qvlib.base.errors import Hindrance, QvlibError
from qvlib.base.executors.processes import slices
from qvlib.core.lockstep import lockstep
from qvlib.core.types import Task
from qvlib.pipeline.context import Context
from qvlib.pipeline.data import data_folders, split_row
from qvlib.pipeline.params import EPISODES
from qvlib.pipeline.work import Failed, guarded, part_count, workers
from qvlib.runs.stage import Stage, is_complete, open_stage, stage_path

TOGETHER = 12
"""Chains that are played together at most, lest a worker that dies take much along."""

Make = Callable[[Context, Sequence[str]], dict[str, Player]]
"""(context, names) -> the player of each name."""


@dataclass(frozen=True)
class Play:
    """What a chain plays.

    names: stage -> the players whose episodes it holds. split: what the tasks are of.
    """

    context: Context
    names: Mapping[str, Sequence[str]]
    make: Make
    split: str
    tasks: Sequence[Task]

    def missing(self) -> list[str]:
        """The stages that are not finished."""
        return [stage for stage in self.names if not is_complete(self.context.params, stage)]

    def agent(self) -> str:
        """What is the same where the agent and how it is sampled are."""
        return self.context.params.digest(f"{EPISODES}{BASE}")


class _UnderWay:
    """A play whose stages are open: what is left of it, and what is written of that."""

    def __init__(self, play: Play, stack: ExitStack) -> None:
        self.play, params = play, play.context.params
        opened = {s: stack.enter_context(open_stage(params, s)) for s in play.missing()}
        self._todo = {name: stage for name, stage in opened.items() if not stage.complete}
        self._stage_of = {name: self._todo[s] for s in self._todo for name in play.names[s]}
        self.done = {name: _played(stage, name) for name, stage in self._stage_of.items()}
        self.finished = sum(len(tasks) for tasks in self.done.values())
        self.total = len(self.done) * len(play.tasks)
        needs = dict.fromkeys(s for stage in self._todo for s in params.upstream(stage))
        self.folders = [
            *data_folders(params),
            *(stage_path(params, s) for s in needs if s != "data"),
        ]

    def keep(self, record: Mapping[str, Any]) -> bool:
        """Write an episode; whether it was the last."""
        self._stage_of[record["arm"]].append("episodes", record)
        self.finished += 1
        return self.finished == self.total

    def finish(self) -> None:
        """Close the stages."""
        for name, stage in self._todo.items():
            stage.to_parquet("episodes", ["arm", "task"])
            stage.finish(
                test=split_row(self.play.split, self.play.tasks), arms=list(self.play.names[name])
            )


def _played(stage: Stage, name: str) -> frozenset[str]:
    records = stage.each("episodes", needs=("arm",))
    return frozenset(record["task"] for record in records if record["arm"] == name)


def play_stages(play: Play) -> None:
    """Play the stages of one chain side by side, those that are not finished."""
    if play.missing():
        with ExitStack() as stack:
            _play([_UnderWay(play, stack)], None, lambda play: None)


def play_all(
    plays: Iterable[Play],
    failed: Callable[[Play, str], None],
    finished: Callable[[Play], Any] = lambda play: None,
) -> None:
    """Play the stages of many chains, those with the same agent together.

    failed: told of a play that went wrong, and why, while others go on. finished: of each other.

    Raises:
        Hindrance: what has nothing to do with the play, such as a folder that is in use; so does
            what the machine lacks.
    """
    by_agent: dict[str, list[Play]] = {}
    for play in plays:
        if play.missing():
            by_agent.setdefault(play.agent(), []).append(play)
        else:
            finished(play)
    for alike in by_agent.values():
        for start in range(0, len(alike), TOGETHER):
            with ExitStack() as stack:
                opened = _opened(alike[start : start + TOGETHER], stack, failed)
                _play(opened, failed, finished)


def _opened(
    plays: Sequence[Play], stack: ExitStack, failed: Callable[[Play, str], None]
) -> list[_UnderWay]:
    found = []
    for play in plays:
        try:
            found.append(_UnderWay(play, stack))
        except Hindrance:
            raise
        except QvlibError as error:
            failed(play, str(error))
    return found


def _play(
    under_way: Sequence[_UnderWay],
    failed: Callable[[Play, str], None] | None,
    finished: Callable[[Play], Any],
) -> None:
    """Play what is left; what goes wrong is raised where nobody is told."""
    left = []
    for each in under_way:
        if each.finished == each.total:  # stopped between the last episode and the end
            each.finish()
            finished(each.play)
        else:
            left.append(each)
    if not left:
        return
    params, wrong = left[0].play.context.params, set()
    with workers(params) as executor:
        executor.place(list(dict.fromkeys(folder for each in left for folder in each.folders)))
        parts = _parts(left, part_count(executor, params), failed is not None)
        with tqdm(
            total=sum(each.total for each in left),
            initial=sum(each.finished for each in left),
            desc="playing",
            unit="episode",
        ) as bar:
            for number, told in executor.stream(_episodes, parts, key=_name):
                if isinstance(told, Failed):
                    if number not in wrong and failed:  # once, though each worker fails
                        failed(left[number].play, told.message)
                    wrong.add(number)
                    continue
                bar.set_postfix_str(told["arm"], refresh=False)
                bar.update()
                if left[number].keep(told):
                    left[number].finish()
                    finished(left[number].play)


_Job = tuple[int, Context, Make, Sequence[Task], Mapping[str, frozenset[str]]]
"""A share of a play: its number, and of which players which tasks are done."""


def _parts(left: Sequence[_UnderWay], count: int, guard: bool) -> list[tuple[list[_Job], bool]]:
    """As many parts: in each a share of every play's tasks, the same tasks where they are alike."""
    shares: list[list[_Job]] = [[] for _ in range(count)]
    for number, each in enumerate(left):
        play = each.play
        for share, tasks in zip(shares, slices(play.tasks, count), strict=False):
            share.append((number, play.context, play.make, tasks, each.done))
    return [(share, guard) for share in shares if share]


def _name(item: tuple[int, Any]) -> tuple[Any, ...]:
    number, told = item
    return (number,) if isinstance(told, Failed) else (number, told["arm"], told["task"])


def _episodes(jobs: Sequence[_Job], guard: bool) -> Iterator[tuple[int, Any]]:
    """The number of a play and the record of an episode of it, or why there are no more."""
    before: Context | None = None
    for number, context, *rest in jobs:
        if before is not None:
            context.take_over(before)
        before = context
        if guard:
            told: Iterator[Any] = guarded(_of_one, "", context, *rest)
        else:
            told = _of_one(context, *rest)
        for each in told:
            yield number, each


def _of_one(
    context: Context,
    make: Make,
    tasks: Sequence[Task],
    done: Mapping[str, frozenset[str]],
) -> Iterator[dict[str, Any]]:
    """Play what is not done of every player on these tasks; yields the episodes' records."""
    run = context.params.run
    for name, player in make(context, list(done)).items():
        todo = [task for task in tasks if task.id not in done[name]]
        jobs = (player.play(context.environment, task, run.seed) for task in todo)
        for record in lockstep(jobs, player.agent, run.batch_size):
            yield {"arm": name, **record}
