"""Advance many generators together so that every language-model call is a full batch.

A search or an episode is written as a generator for one task: it yields a ``Request`` and is sent
back the proposals. What batches them is this file alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

from qvlib.core.reranker import Filtered
from qvlib.core.types import Agent, Proposal, Request

T = TypeVar("T")
Job = Generator[Request, list[Proposal], T]


def lockstep(jobs: Iterable[Job[T]], agent: Agent, width: int) -> Iterator[T]:
    """Run ``jobs`` with at most ``width`` of them under way; yield results as they finish.

    Results come in the order of finishing. A job's result does not depend on its company, since
    every draw is seeded by its request's key. What a ``Filtered`` agent redraws for one job goes into
    the next call with what the others ask: small calls cost nearly as much as full ones.
    """
    while isinstance(agent, Filtered) and agent.fallback is None:
        jobs, agent = map(agent.around, jobs), agent.agent
    waiting = iter(jobs)
    running: list[tuple[Job[T], Request]] = []
    more = True
    while True:
        while more and len(running) < width:
            job = next(waiting, None)
            if job is None:
                more = False
            else:
                yield from _resume(job, None, running)
        if not running:
            return
        batch, running = running, []
        answers = agent.propose([request for _, request in batch])
        for (job, _), proposals in zip(batch, answers, strict=True):
            yield from _resume(job, proposals, running)


def _resume(
    job: Job[T], proposals: list[Proposal] | None, running: list[tuple[Job[T], Request]]
) -> Iterator[T]:
    """Send a job its answer; it either asks again (appended to ``running``) or ends (yielded)."""
    try:
        running.append((job, job.send(proposals)))
    except StopIteration as end:
        yield end.value
