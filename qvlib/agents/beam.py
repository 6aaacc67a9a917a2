"""The arm beam: step-level beam search with values, where the environment may be tried.

As with AgentRM (arXiv 2502.18407) and OREO (arXiv 2412.16145): at each step n actions are sampled
in every state of the beam, and the states that are worth most stay. The environment's reward is
never looked at: of the episodes that ended, the one of the highest value is played, so that, unlike
``search`` and ``best_of_n``, it needs a world that can be tried but no judge.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from qvlib.agents.arm import TRIED, Cast, Player, arm
from qvlib.agents.values import offers, record, valued, wants_values
from qvlib.base.settings import Settings, setting
from qvlib.core.types import Cost, Environment, Job, State, Task


class BeamSettings(Settings):
    """Step-level beam search."""

    stage: ClassVar[str | None] = "episodes/beam"

    beam_width: int = setting(
        0, "states that the arm beam keeps at each step (ours: 2); 0 = no such arm", ge=0
    )
    beam_n: int = setting(5, "actions sampled in each state of the beam (ours)", ge=1)


def beam_search(
    environment: Environment, task: Task, seed: int, width: int, n: int
) -> Job[dict[str, Any]]:
    """The record of the episode that beam search chooses; for a ``valued`` agent.

    The ``width`` best of all candidates of a depth are stepped, no others: Q(s, a) is the value of
    the state behind it. An end keeps its place in the beam; ties go to what was drawn first. The
    first state of a beam sees the draws that an episode sees at its depth: with width 1 this is
    reranking of n.
    """
    live, ends = [environment.reset(task)], list[tuple[float, State]]()
    cost, offered = Cost(), 0
    while live:
        grown: list[tuple[float, State, str]] = []
        for place, state in enumerate(live):
            node = f"{state.depth}/beam {place}" if place else str(state.depth)
            found, spent = yield from offers(state, n, (seed, task.id, node))
            grown += [(value, state, action) for value, action in found]
            cost += spent
        kept = sorted(grown, key=lambda grown: -grown[0])[: width - len(ends)]
        reached = [(value, environment.step(state, action)) for value, state, action in kept]
        cost, offered, live = cost + Cost(env_steps=len(kept)), offered + len(grown), []
        for value, state in reached:
            if state.done or state.depth >= environment.max_steps:
                ends.append((value, state))
            else:
                live.append(state)
    # An episode that was cut off earns nothing, whatever it promised.
    _, best = max(ends, key=lambda end: (end[1].done, end[0]))
    return record(task, best, cost, offered)


def _player(cast: Cast) -> Player:
    how = cast.params.beam
    play = partial(beam_search, width=how.beam_width, n=how.beam_n)
    return Player(valued(cast, how.beam_n), play)


def _active(params: Any) -> bool:
    return params.beam.beam_width > 0


BEAM = arm(
    "beam",
    TRIED,
    "step-level beam search in the environment: the beam_width states of the highest value stay, "
    "and of the episodes that end the one of the highest value is played",
    _player,
    needs=("q_model",),
    decided_by=("rerank",),
    settings=BeamSettings,
    active=_active,
    wrong=wants_values,
)
