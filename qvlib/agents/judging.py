"""Proposals in the order of a judge, and lessons of the failures that were seen on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from qvlib.agents.prompted import ACT, JUDGE, MOST_LESSONS, REFLECT, Asked
from qvlib.core.types import Cost, Environment, Job, Proposal, Request, State

_SCORE = re.compile(r"score(?:\s+is)?\W*(\d+)", re.IGNORECASE)


@dataclass
class Memory:
    """What a search has learnt of its failures: lessons, and ends that have none yet."""

    lessons: tuple[str, ...] = ()
    failed: dict[tuple[str, float], State] = field(default_factory=dict)  # (last action, reward)

    def note(self, end: State) -> None:
        """Keep a failed end, if it differs from those before."""
        if end.reward < 1:
            self.failed.setdefault((end.history[-1].action, end.reward), end)

    def unlearnt(self) -> list[State]:
        """The ends that a lesson is still to be written of."""
        return list(self.failed.values())[len(self.lessons) : MOST_LESSONS]


def judged(environment: Environment, memory: Memory, request: Request) -> Job[list[Proposal]]:
    """The proposals for a request, the child valued most first; its cost is that of judging too.

    A child is stepped to be judged, and again by the search, which counts the step.
    """
    cost, (seed, task, node) = Cost(), request.key
    for end in memory.unlearnt():
        key = (seed, task, f"{node}/lesson {len(memory.lessons)}")
        (lesson,) = yield Asked(end, 1, key, REFLECT, memory.lessons)
        memory.lessons, cost = (*memory.lessons, lesson.action), cost + lesson.cost
    proposals = yield Asked(request.state, request.n, request.key, ACT, memory.lessons)
    values: dict[str, float] = {}
    for k, action in enumerate(dict.fromkeys(p.action for p in proposals)):
        child = environment.step(request.state, action)
        if child.done:
            values[action] = child.reward
            memory.note(child)
        else:
            key = (seed, task, f"{node}/judge {k}")
            (reply,) = yield Asked(child, 1, key, JUDGE, memory.lessons)
            values[action], cost = score_of(reply.action), cost + reply.cost
    first, *others = sorted(proposals, key=lambda p: -values[p.action])
    return [replace(first, cost=first.cost + cost), *others]


def score_of(reply: str) -> float:
    """The score that a judge's reply concludes with, in [0.1, 1]; -1 where it gives none."""
    scores = _SCORE.findall(reply)
    return min(10, max(1, int(scores[-1]))) / 10 if scores else -1.0
