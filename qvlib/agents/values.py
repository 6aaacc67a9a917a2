"""Values of states: which estimators give them, and searches that go by them.

Q(s, a) = V(s') in a deterministic world: the score of an action says what its next state is worth
before any step is taken there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qvlib.agents.arm import Cast
from qvlib.core.episodes import Episode
from qvlib.core.reranker import Reranked
from qvlib.core.types import Cost, Job, Key, Proposal, Request, State, Task, total
from qvlib.estimators import ESTIMATORS, estimator_of

Offer = tuple[float, str]
"""(the value of the state that an action leads to, the action)."""


def wants_values(params: Any) -> str:
    """What is wrong where an arm compares states and the run's estimator gives no values."""
    name = params.q_model.estimator
    if estimator_of(name).compares_states(params.estimator):
        return ""
    known = [each for each in ESTIMATORS if estimator_of(each).values and each != name]
    other = " or ".join(known) or "one of your own with values=True"
    return (
        f"the arm compares states by their values, and the scores of {name} with these settings "
        f"order the actions of one state alone; set estimator to {other}, or leave the arm out"
    )


def valued(cast: Cast, n: int) -> Reranked:
    """The agent whose ``n`` candidates have the value of their next state as ``q``."""
    return Reranked(cast.sampler(), cast.q_model(), n)


def offers(state: State, n: int, key: Key) -> Job[tuple[list[Offer], Cost]]:
    """The distinct actions of ``n`` draws of a ``valued`` agent, best first, and what that cost."""
    proposals = yield Request(state, n, key)
    spent = total(p.cost for p in proposals) + Cost(proposals=len(proposals))
    return list(_distinct(proposals)), spent


def _distinct(proposals: list[Proposal]) -> Iterator[Offer]:
    values = {p.action: p.q for p in proposals}
    for action, value in values.items():
        assert value is not None  # of a ``valued`` agent
        yield value, action


def record(task: Task, end: State, cost: Cost, offered: int) -> dict[str, Any]:
    """The record of the episode that a search chose, with all the search's cost.

    offered: actions that were valued. ``env_steps_saved``: those of them that were not stepped,
    which a search that values states after stepping into them would have paid for.
    """
    actions = tuple(step.action for step in end.history)
    played = Episode(task, float(end.reward), end.done, actions, cost)
    return played.record() | {"env_steps_saved": offered - cost.env_steps}
