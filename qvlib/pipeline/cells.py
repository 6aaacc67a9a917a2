"""Many parameter sets, such as the cells of a grid, made side by side where some may fail.

Each stage is made for all of them before the next, so that what they share is made once, and agents
and models are made in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from qvlib.base.errors import Hindrance, QvlibError, of_the_machine
from qvlib.pipeline.agents import make_agents
from qvlib.pipeline.context import Context
from qvlib.pipeline.data import prepare_data
from qvlib.pipeline.params import Params
from qvlib.pipeline.playing import Play, play_all
from qvlib.pipeline.q import fit


class Cells:
    """Cells by name, each one chain, that share the environment of a run where their data agree.

    todo: those that have not failed. failed: why, by the name of a cell.
    """

    def __init__(self, run: Context, cells: Mapping[Any, Params]) -> None:
        self.todo: dict[Hashable, Params] = dict(cells)
        self.failed: dict[Hashable, str] = {}
        self._environments = {run.params.digest("data"): run.environment}

    def context(self, cell: Params) -> Context:
        """The context of a cell."""
        digest = cell.digest("data")
        if digest not in self._environments:
            self._environments[digest] = prepare_data(cell)
        return Context(cell, self._environments[digest])

    def each(self, stages: str | Iterable[str], step: Callable[[Context], Any]) -> None:
        """Make stages of every cell, once where cells share them; one that raises has failed.

        Raises:
            Hindrance: what has nothing to do with the cell, such as a folder that is in use.
        """
        for cell in self._distinct(*_names(stages)):
            self._guarded(cell, stages, step)

    def play(
        self,
        stages: str | Iterable[str],
        play: Callable[[Context], Play],
        finished: Callable[[], Any] = lambda: None,
    ) -> None:
        """Play stages of every cell, those with the same agent together; finished: told of each.

        Raises:
            Hindrance: what has nothing to do with the cell, such as a folder that is in use.
        """
        plays: list[Play] = []
        for cell in self._distinct(*_names(stages)):
            self._guarded(cell, stages, lambda context: plays.append(play(context)))

        def failed(play: Play, message: str) -> None:
            self._fail(play.context.params, message, *_names(stages))

        play_all(plays, failed, lambda play: finished())

    def agents(self) -> None:
        """Make the agents side by side."""
        todo = [(self.context(cell), "agent") for cell in self._distinct("agent")]
        make_agents(todo, lambda cell, message: self._fail(cell, message, "agent"))

    def fit(self, stage: str, those: Callable[[Params], bool] = lambda cell: True) -> None:
        """Fit the models of ``q_model`` or ``control`` side by side; of ``those`` cells alone."""
        todo = [(self.context(cell), stage) for cell in self._distinct(stage) if those(cell)]
        fit(todo, lambda cell, message: self._fail(cell, message, stage))

    def _guarded(
        self, cell: Params, stages: str | Iterable[str], step: Callable[[Context], Any]
    ) -> None:
        try:
            step(self.context(cell))
        except Hindrance:
            raise
        except (QvlibError, RuntimeError) as error:
            if of_the_machine(error):
                raise
            self._fail(cell, str(error).strip() or type(error).__name__, *_names(stages))

    def _distinct(self, *stages: str) -> list[Params]:
        """One cell for each outcome of the stages."""
        return list({_digests(cell, stages): cell for cell in self.todo.values()}.values())

    def _fail(self, cell: Params, message: str, *stages: str) -> None:
        """Take every cell that shares these stages from what is to be done."""
        for name, other in list(self.todo.items()):
            if _digests(other, stages) == _digests(cell, stages):
                self.failed[name] = message.strip().splitlines()[-1]
                del self.todo[name]


def _names(stages: str | Iterable[str]) -> tuple[str, ...]:
    return (stages,) if isinstance(stages, str) else tuple(stages)


def _digests(cell: Params, stages: Iterable[str]) -> tuple[str, ...]:
    return tuple(cell.digest(stage) for stage in stages)
