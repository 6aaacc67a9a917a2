"""Agents that are told lessons of earlier trials, and the same chat model as judge and as critic.

What is asked goes by one agent, so that ``lockstep`` batches it: an ``Asked`` names the part. A
lesson stands behind the task's instruction, for whoever reads that; Q models are scored without. A
model that was cloned from one form of prompt, such as the small agent, cannot read lessons: words
that it never saw are noise to it. It is told none, and nobody writes any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from qvlib.agents.arm import Cast
from qvlib.core.episodes import under
from qvlib.core.types import Agent, Job, Proposal, Request, State

T = TypeVar("T")

ACT, JUDGE, REFLECT = "act", "judge", "reflect"
MOST_LESSONS = 3
"""Lessons that are told at once, the latest (public code of LATS and of Reflexion: 3)."""
JUDGE_TOKENS, LESSON_TOKENS = 100, 200  # longest answers (ours)
JUDGE_ROLE = (
    "You judge the unfinished trial of a task by somebody else. Say in a sentence or two whether "
    "it is on the way to do all that the task asks. Then conclude with a line `Score: N`, where N "
    "is a whole number from 1, hopeless, to 10, all is right so far."
)
REFLECT_ROLE = (
    "You look back at your own trial of a task, which has not earned the full reward of 1. Say in "
    "one to three sentences what went wrong, and what to do otherwise in the next trial, with "
    "reference to specific actions. Do not retell the trial."
)


@dataclass(frozen=True, slots=True)
class Asked(Request):
    """A request to one part of a ``Prompted`` agent, which is told these lessons first."""

    part: str = ACT
    lessons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reads:
    """An agent that reads the lessons of an ``Asked`` behind the instruction of the task."""

    agent: Agent

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        told = [_told(r.state, r.lessons) if isinstance(r, Asked) else r.state for r in requests]
        return self.agent.propose(
            [Request(state, r.n, r.key) for state, r in zip(told, requests, strict=True)]
        )


@dataclass(frozen=True)
class Prompted:
    """Hands each request to the agent of its part; one that is no ``Asked`` is for ``ACT``."""

    parts: Mapping[str, Agent]

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        answers: dict[int, list[Proposal]] = {}
        for part, agent in self.parts.items():
            places = [i for i, r in enumerate(requests) if getattr(r, "part", ACT) == part]
            if places:
                asked = [requests[i] for i in places]
                answers |= zip(places, agent.propose(asked), strict=True)
        return [answers[i] for i in range(len(requests))]


def writers(cast: Cast) -> dict[str, Agent]:
    """The judge and the critic, where the agent is a chat model; else none.

    They are sampled as the agent is, and read lessons too.
    """
    from qvlib.models.writing import talks, writer

    lm, how = cast.model(), cast.params.sampling
    if not talks(lm):
        return {}
    roles = {
        JUDGE: (JUDGE_ROLE, lambda _: "Judge this trial.", JUDGE_TOKENS),
        REFLECT: (REFLECT_ROLE, _outcome, LESSON_TOKENS),
    }
    return {
        part: Reads(writer(lm, *role, how.temperature, how.top_p)) for part, role in roles.items()
    }


def asking(job: Job[T], answer: Callable[[Request], Job[list[Proposal]]]) -> Job[T]:
    """The same job, each of whose requests is answered by a job of its own."""
    answers: list[Proposal] | None = None
    while True:
        try:
            request = next(job) if answers is None else job.send(answers)
        except StopIteration as end:
            result: T = end.value
            return result
        answers = yield from answer(request)


def _outcome(state: State) -> str:
    ended = f"The trial ended with reward {state.reward:.2f} of 1."
    return f"{ended if state.done else 'The steps ran out before an end.'} Write the lesson."


def _told(state: State, lessons: Sequence[str]) -> State:
    """A state whose instruction closes with lessons."""
    if not lessons:
        return state
    told = "\n".join(f"- {lesson}" for lesson in lessons)
    return under(state, f"{state.task.instruction}\nLessons of earlier trials:\n{told}")
