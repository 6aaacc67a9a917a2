"""A chat model's verdicts in the place of the environment's rewards (arXiv 2404.06474).

A search or an episode asks for them as it asks for actions, so that they go out in full batches: a
request in a state that is done asks for a verdict, since no action can follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from qvlib.core.episodes import episode, replay
from qvlib.core.types import Agent, Environment, Job, Key, Proposal, Request, State, Task
from qvlib.models.verdicts import verdict

HALF = 0.5  # where a verdict or a reward is taken for a success, to count how often they agree


@dataclass(frozen=True)
class Judging:
    """An agent, and who is asked where an episode has ended: what it proposes is its verdict."""

    agent: Agent
    judge: Agent

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        answers: dict[int, list[Proposal]] = {}
        for asked, ended in ((self.agent, False), (self.judge, True)):
            own = [i for i, request in enumerate(requests) if request.state.done is ended]
            if own:
                told = asked.propose([requests[i] for i in own])
                answers |= dict(zip(own, told, strict=True))
        return [answers[i] for i in range(len(requests))]


@dataclass
class Verdicts:
    """The judge of one search or episode, which counts what it has said; a ``Judge`` of the core.

    A reply without a number in [0, 1] is worth 0 and counts as unparsable.

    verdicts: how many. verdicts_unparsable: of them. verdicts_agree: those that the environment's
    own reward agrees with, both at least one half or both less, where it has one. verdict_tokens,
    verdict_prompt_tokens: written and read.
    """

    verdicts: int = 0
    verdicts_unparsable: int = 0
    verdicts_agree: int = 0
    verdict_tokens: int = 0
    verdict_prompt_tokens: int = 0

    def __call__(self, state: State, key: Key) -> Job[State]:
        """The end with the verdict as its reward."""
        (answer,) = yield Request(state, 1, key)
        told = verdict(answer.action)
        reward = told or 0.0
        self.verdicts += 1
        self.verdicts_unparsable += told is None
        self.verdicts_agree += (reward >= HALF) == (state.reward >= HALF)
        self.verdict_tokens += answer.cost.tokens
        self.verdict_prompt_tokens += answer.cost.prompt_tokens
        return replace(state, reward=reward)

    def record(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def judged_episode(
    environment: Environment, task: Task, seed: int, judge: Verdicts | None, trial: int = 0
) -> Job[dict[str, Any]]:
    """``episode`` with the judge's verdict for its reward where there is a judge and an end."""
    record = yield from episode(environment, task, seed, trial=trial)
    if judge is not None and record["done"]:
        end = replay(environment, task, record["actions"])
        judged = yield from judge(end, (seed, task.id, f"verdict/trial {trial}"))
        record["reward"] = judged.reward
    return record if judge is None else record | judge.record()
