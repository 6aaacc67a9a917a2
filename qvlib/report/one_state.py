"""One state of an episode: what an agent draws there, what Q makes of it, what is executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from qvlib.base import markup
from qvlib.core.episodes import replay
from qvlib.core.types import Agent, Key, Proposal, Request, State
from qvlib.pipeline.context import Context
from qvlib.report.formats import with_unit


def draws(agent: Agent, states: Mapping[str, State], n: int, key: Key) -> pd.DataFrame:
    """What an agent draws ``n`` times in each state that is not the end of an episode.

    states: what to call each -> state. key: (seed, task, ""); each state's draws have their own.
    A row a draw. Where no agent tells log-probabilities, there is no such column.
    """
    rows = []
    for i, (name, state) in enumerate(states.items()):
        asked = [] if state.done else [Request(state, n, (*key[:2], f"{key[2]}{i}"))]
        for proposal in (p for answer in agent.propose(asked) for p in answer):
            rows.append(
                {
                    "state": name,
                    "action": markup.code(proposal.action),
                    "log p (nats)": proposal.log_prob,
                    "refused before": proposal.cost.refused,
                }
            )
    return pd.DataFrame(rows).dropna(axis=1, how="all")


def deciding(records: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], int]:
    """(episode, step) at which Q changed most: its best candidate against the one drawn first.

    records: of episodes with a trace. The first of several such steps.
    """
    steps = [(record, i) for record in records for i in range(len(record["trace"]))]
    return max(steps, key=lambda step: _changed(step[0]["trace"][step[1]]["candidates"]))


def _changed(candidates: list[Mapping[str, Any]]) -> float:
    return max(c["q"] for c in candidates) - candidates[0]["q"]


def request(context: Context, record: Mapping[str, Any], step: int) -> Request:
    """What the agent was asked at a step of an episode: the same state, the same draws."""
    task = next(task for task in context.uses.test if task.id == record["task"])
    state: State = replay(context.environment, task, record["actions"][:step])
    return Request(state, 1, (context.params.run.seed, task.id, str(step)))


def table(chosen: Proposal, unit: str = "") -> pd.DataFrame:
    """The distinct candidates that a reranked agent chose from, the highest Q first.

    unit: of Q.
    Those whose log-probability no agent tells have no such column.
    """
    draws = Counter(candidate.action for candidate in chosen.considered)
    candidates = {candidate.action: candidate for candidate in chosen.considered}
    ordered = sorted(candidates.values(), key=lambda c: -(c.q or 0.0))
    rows = pd.DataFrame(
        {
            "candidate": [markup.code(c.action) for c in ordered],
            "draws": [draws[c.action] for c in ordered],
            "log p (nats)": [c.log_prob for c in ordered],
            with_unit("Q", unit): [c.q for c in ordered],
            "": ["executed" if c.action == chosen.action else "" for c in ordered],
        }
    )
    return rows.dropna(axis=1, how="all")
