"""What a notebook begins with: one call that does what is missing and finds what is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.types import Environment
from qvlib.pipeline.agents import train_agents
from qvlib.pipeline.context import Context, context_of
from qvlib.pipeline.episodes import play
from qvlib.pipeline.notebook import notebook_parameters
from qvlib.pipeline.pairs import make_pairs
from qvlib.pipeline.params import EPISODES, Params
from qvlib.pipeline.q import train_q
from qvlib.pipeline.trees import collect
from qvlib.runs.stage import Stage, read_stage

ORDER: dict[str, Callable[[Context], Any]] = {
    "data": lambda context: None,
    "agent": train_agents,
    "trees": collect,
    "pairs": make_pairs,
    "q_model": train_q,
    "episodes": play,
}


@dataclass(frozen=True)
class Run:
    """A run as far as it was asked for: its parameters, its environment, its stages."""

    params: Params
    environment: Environment

    @cached_property
    def context(self) -> Context:
        """The environment, tasks and models of the first chain, loaded when first asked for."""
        return Context(self.params.each_seed()[0], self.environment)

    @cached_property
    def all_chains(self) -> Context:
        """The same of all chains, for what makes something of each; it loads no model."""
        return Context(self.params, self.environment)

    def stage(self, name: str) -> Stage:
        """A finished stage of the first chain, to read from: ``trees``, ``episodes/q_n5``, ..."""
        return read_stage(self.params.each_seed()[0], name)

    def episodes(self, arm: str) -> list[dict[str, Any]]:
        """The records of an arm's episodes."""
        return self.stage(f"{EPISODES}{arm}").records("episodes")


def until(stage: str, parameters: Params | Mapping[str, Any]) -> Run:
    """Make every stage up to this one that is not there yet; what is finished is found again.

    stage: ``data``, ``agent``, ``trees``, ``pairs``, ``q_model`` or ``episodes``.
    parameters: a run's, or in a notebook ``globals()``: then they are what its parameters cell
    (and papermill) set, and a mistyped one stops here.

    Raises:
        QvlibError: no such stage, wrong parameters, or whatever a stage raises.
    """
    if stage not in ORDER:
        raise QvlibError(f"stage {stage!r}: give one of {', '.join(ORDER)}")
    params = parameters if isinstance(parameters, Params) else notebook_parameters(parameters)
    context = context_of(params)
    for name, make in ORDER.items():
        make(context)
        if name == stage:
            break
    return Run(params, context.environment)
