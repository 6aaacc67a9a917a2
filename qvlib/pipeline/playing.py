"""How episodes are played: by workers, of one chain or of many, such as the cells of a grid.

Cells with the same agent are played by the same workers, a share of the tasks each. In one state
they draw the same candidates, so that a worker samples those once, and each Q model only scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from qvlib.agents.arm import Player
from qvlib.base.errors import Hindrance, QvlibError
from qvlib.base.executors.processes import slices
from qvlib.core.lockstep import lockstep
from qvlib.core.types import Task
from qvlib.pipeline.context import Context
from qvlib.pipeline.data import data_folders, split_row
from qvlib.pipeline.work import Failed, guarded, part_count, workers
from qvlib.runs.stage import Stage, is_complete, open_stage, stage_path

TOGETHER = 12
"""Chains that are played together at most, lest a worker that dies take much along."""

Done = Mapping[str, frozenset[str]]
"""Name of a player -> the tasks that it has played."""
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


class _UnderWay:
    """A play whose stages are open: what is left of it, and what is written of that."""

    def __init__(self, play: Play, stack: ExitStack, taken: set[Path]) -> None:
        """taken: folders that others hold, to which those of this one are added."""
        self.play, params = play, play.context.params
        paths = {stage: stage_path(params, stage) for stage in play.missing()}
        own = [stage for stage, path in paths.items() if path not in taken]
        taken.update(paths.values())
        opened = {stage: stack.enter_context(open_stage(params, stage)) for stage in own}
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
            _play([_UnderWay(play, stack, set())], None, lambda play: None)


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
    todo, wrong, over = list(plays), set[int](), set[int]()

    def fails(play: Play, message: str) -> None:
        if id(play) not in wrong:  # once, though each worker fails
            wrong.add(id(play))
            failed(play, message)

    def ends(play: Play) -> None:
        if id(play) not in over:
            over.add(id(play))
            finished(play)

    left = todo
    while left:  # again, where what two plays share was the part of one that went wrong
        by_agent: dict[str, list[Play]] = {}
        for play in left:
            by_agent.setdefault(play.context.sampled(), []).append(play)
        for alike in by_agent.values():
            for start in range(0, len(alike), TOGETHER):
                with ExitStack() as stack:
                    opened = _opened(alike[start : start + TOGETHER], stack, fails)
                    _play(opened, fails, ends)
        left = [play for play in todo if id(play) not in wrong and play.missing()]


def _opened(
    plays: Sequence[Play], stack: ExitStack, failed: Callable[[Play, str], None]
) -> list[_UnderWay]:
    found, taken = [], set[Path]()
    for play in plays:
        try:
            found.append(_UnderWay(play, stack, taken))
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
    params = left[0].play.context.params
    with workers(params) as executor:
        executor.place(list(dict.fromkeys(folder for each in left for folder in each.folders)))
        jobs = shares([(each.play, each.done) for each in left], part_count(executor, params))
        parts = [(share, failed is not None) for share in jobs]
        with tqdm(
            total=sum(each.total for each in left),
            initial=sum(each.finished for each in left),
            desc="playing",
            unit="episode",
        ) as bar:
            for number, told in executor.stream(episodes, parts, key=_name):
                if failed and isinstance(told, Failed):
                    failed(left[number].play, told.message)
                    continue
                bar.set_postfix_str(told["arm"], refresh=False)
                bar.update()
                if left[number].keep(told):
                    left[number].finish()
                    finished(left[number].play)


Job = tuple[int, Context, Make, Sequence[Task], Done]
"""A share of a play: its number, and of which players which tasks are done."""


def shares(plays: Sequence[tuple[Play, Done]], count: int) -> list[list[Job]]:
    """As many lists of jobs: in each a share of every play's tasks, the same of the same tasks."""
    found: list[list[Job]] = [[] for _ in range(count)]
    for number, (play, done) in enumerate(plays):
        for share, tasks in zip(found, slices(play.tasks, count), strict=False):
            share.append((number, play.context, play.make, tasks, done))
    return [share for share in found if share]


def _name(item: tuple[int, Any]) -> tuple[Any, ...]:
    number, told = item
    return (number,) if isinstance(told, Failed) else (number, told["arm"], told["task"])


def episodes(jobs: Sequence[Job], guard: bool = False) -> Iterator[tuple[int, Any]]:
    """The number of a play and the record of an episode of it, of one play after the other.

    guard: what a play raises ends it alone, and is told in the place of a record.
    """
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
    done: Done,
) -> Iterator[dict[str, Any]]:
    """Play what is not done of every player on these tasks; yields the episodes' records."""
    run = context.params.run
    for name, player in make(context, list(done)).items():
        todo = [task for task in tasks if task.id not in done[name]]
        jobs = (player.play(context.environment, task, run.seed) for task in todo)
        for record in lockstep(jobs, player.agent, run.batch_size):
            yield {"arm": name, **record}
