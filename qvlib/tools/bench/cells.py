"""Cells of a grid that are played together, against one after the other."""

from __future__ import annotations

from collections import Counter
from typing import Any

from qvlib.tools.bench.common import Rows, interleaved

TOGETHER, ALONE = "together", "one after the other"
WEIGHTS = (0.0, 0.1, 0.2, 0.5)
TASKS = 64


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Four cells of a grid, 64 dev tasks each, with agent and Q model of ``params/quick.yml``.

    The cells weigh the agent's log-probability by 0, 0.1, 0.2 and 0.5. Together they are played in
    one process that keeps the agent, and so remembers what it said in each state; one after the
    other each begins with a process' empty memory, as any two runs do. Times are CPU seconds of the
    process, medians of rounds in which the ways take turns. ``tokens`` were computed by the agent's
    model. The limit: what it would be if only the first cell took any time. ``same_episodes``
    counts those that came out the same, as all should.

    Raises:
        QvlibError: the Q model of ``params/quick.yml`` is not trained.
    """
    played: dict[str, list[Any]] = {}
    tokens: dict[str, int] = {}

    def play(way: str) -> None:
        played[way], used = [], Counter[str]()
        contexts = _contexts()
        for group in [contexts] if way == TOGETHER else [[context] for context in contexts]:
            played[way] += _episodes(group)
            used += group[-1].model().usage
        tokens[way] = used["computed_tokens"]

    seconds = interleaved({way: lambda way=way: play(way) for way in (TOGETHER, ALONE)}, repeats)
    ratio = seconds[ALONE] / seconds[TOGETHER]
    rows = [
        {
            "way": way,
            "cells": len(WEIGHTS),
            "episodes/s": len(played[way]) / seconds[way],
            "tokens an episode": tokens[way] / len(played[way]),
            "times one after the other": seconds[ALONE] / seconds[way],
            "its limit": float(len(WEIGHTS)) if way == TOGETHER else None,
        }
        for way in (TOGETHER, ALONE)
    ]
    same = sum(one == other for one, other in zip(*played.values(), strict=True))
    return rows, {"ratio": ratio, "same_episodes": same, "of_episodes": len(played[ALONE])}


def _contexts() -> list[Any]:
    from qvlib.pipeline import Context, make

    return [Context(make({"prior_weight": weight, "trial_tasks": TASKS})) for weight in WEIGHTS]


def _episodes(contexts: list[Any]) -> list[Any]:
    """The records of cells in this process, as a worker plays its share of them."""
    from qvlib.pipeline.playing import episodes, shares
    from qvlib.pipeline.trials import players_of, trial_of

    nothing = {name: frozenset[str]() for name in players_of("trial")}
    (part,) = shares([(trial_of(context), nothing) for context in contexts], 1)
    told = sorted((number, r["arm"], r["task"], r["actions"]) for number, r in episodes(part))
    return [record for _, *record in told]
