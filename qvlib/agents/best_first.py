"""The arm best_first: best-first search that steps the environment only for what it expands.

A* without expansions (arXiv 2102.04518) and Q* (arXiv 2406.14283): the queue holds (state, action)
pairs that nobody has stepped, by f = g + lambda h with h = Q(s, a), the value of the state behind
the pair. Rewards come at the end, so that g is what the steps so far have cost, a fixed amount
each; lambda would only rescale that amount.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from functools import partial
from typing import Any, ClassVar

from qvlib.agents.arm import TRIED, Cast, Player, arm
from qvlib.agents.values import offers, record, valued, wants_values
from qvlib.base.settings import Settings, setting
from qvlib.core.types import Cost, Environment, Job, State, Task


class BestFirstSettings(Settings):
    """Best-first search."""

    stage: ClassVar[str | None] = "episodes/best_first"

    best_first_steps: int = setting(
        0, "most steps in the environment of the arm best_first (ours: 30); 0 = no such arm", ge=0
    )
    best_first_n: int = setting(5, "actions sampled in each state that it expands (ours)", ge=1)
    best_first_step_cost: float = setting(
        0.0, "what a step costs in its priority, in units of reward; 0 = Q alone (ours)", ge=0
    )


def best_first(
    environment: Environment, task: Task, seed: int, steps: int, n: int, step_cost: float
) -> Job[dict[str, Any]]:
    """The record of the episode that best-first search chooses; for a ``valued`` agent.

    The first end that comes off the queue is it: by its own estimate nothing that is open promises
    more, which is A*'s rule. The environment's reward is never looked at, unlike in ``search`` and
    ``best_of_n``. Ties go to the deeper, then to what was queued first. Where ``steps`` are spent
    or nothing is open before an end, the episode is the one that was reached last, cut off.
    """
    state, cost, offered = environment.reset(task), Cost(), 0
    queue: list[tuple[float, int, int, State, str]] = []
    order, expanded = itertools.count(), Counter[int]()
    while True:
        if state.depth < environment.max_steps and cost.env_steps < steps:
            # The first state of a depth sees the draws that an episode sees there.
            again = expanded[state.depth]
            node = f"{state.depth}/best first {again}" if again else str(state.depth)
            expanded[state.depth] += 1
            found, spent = yield from offers(state, n, (seed, task.id, node))
            cost, offered = cost + spent, offered + len(found)
            paid = step_cost * (state.depth + 1)
            for value, action in found:
                heapq.heappush(queue, (paid - value, -state.depth, next(order), state, action))
        if not queue or cost.env_steps >= steps:
            break
        *_, parent, action = heapq.heappop(queue)
        state, cost = environment.step(parent, action), cost + Cost(env_steps=1)
        if state.done:
            break
    return record(task, state, cost, offered)


def _player(cast: Cast) -> Player:
    how = cast.params.best_first
    play = partial(
        best_first,
        steps=how.best_first_steps,
        n=how.best_first_n,
        step_cost=how.best_first_step_cost,
    )
    return Player(valued(cast, how.best_first_n), play)


def _active(params: Any) -> bool:
    return params.best_first.best_first_steps > 0


BEST_FIRST = arm(
    "best_first",
    TRIED,
    "best-first search by Q, which steps the environment for what it expands alone: the first "
    "episode that ends",
    _player,
    needs=("q_model",),
    decided_by=("rerank",),
    settings=BestFirstSettings,
    active=_active,
    wrong=wants_values,
)
