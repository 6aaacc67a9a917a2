"""Advance many generators together so that every language-model call is a full batch.

A search or an episode is written as a generator for one task (a ``Job``): it yields a ``Request``
and is sent back the proposals. What batches them is this file alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

from qvlib.base.errors import QvlibError
from qvlib.core.types import Agent, Job, Proposal, Request

T = TypeVar("T")


@runtime_checkable
class Wraps(Protocol):
    """An agent that asks another, perhaps more than once, and whose part a job can take over."""

    @property
    def inner(self) -> Agent | None:
        """The agent that answers everything it asks; None if there is no such one agent."""

    def around(self, job: Job[T]) -> Job[T]:
        """The same job for ``inner``, with the same result: it also asks what this agent would."""


def lockstep(jobs: Iterable[Job[T]], agent: Agent, width: int) -> Iterator[T]:
    """Run ``jobs`` with at most ``width`` of them under way; yield results as they finish.

    Results come in the order of finishing. A job's result does not depend on its company, since
    every draw is seeded by its request's key. What an agent that wraps another (``Wraps``) asks for
    one job goes into the next call with what the others ask: small calls cost nearly as much as
    full ones. Raises QvlibError at the first result where ``width`` is under 1.
    """
    if width < 1:
        raise QvlibError(f"width {width} lets no job run; give 1 or more")
    while isinstance(agent, Wraps) and agent.inner is not None:
        jobs, agent = map(agent.around, jobs), agent.inner
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
        request = next(job) if proposals is None else job.send(proposals)
    except StopIteration as end:
        yield end.value
    else:
        running.append((job, request))
