"""A chat model's verdict on the end of an episode: what it is asked, and the number in its reply.

As in Autonomous Evaluation and Refinement (arXiv 2404.06474), from text alone: the instruction, the
pages and the actions. The page of the end is not shown, since in some worlds it tells the reward.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.types import Agent, Proposal, Request, State
from qvlib.models.replies import said

ROLE = (
    "You judge the trial of a task by somebody else. You see the task and all that was done; the "
    "page after the last action, which ended the trial, is not shown."
)
ASKED = (
    "How far does the end of this trial fulfil the task? Reply with one number from 0, nothing of "
    "it, to 1, all of it, and nothing else."
)
HIDDEN = "(not shown)"
_NUMBER = re.compile(r"(?<![\w.-])(\d*\.?\d+)(\s*(?:[/%]|out of))?", re.IGNORECASE)


def verdict(reply: str) -> float | None:
    """The first number of a reply behind its thoughts, in [0, 1]; None where it is no such one."""
    found = _NUMBER.search(reply[slice(*said(reply))])
    if found is None or found[2]:  # a percentage, or 3/10
        return None
    value = float(found[1])
    return value if value <= 1 else None


@dataclass(frozen=True)
class Judge:
    """Asked about the ends of episodes, it proposes verdicts as text."""

    writer: Agent

    def propose(self, requests: list[Request]) -> list[list[Proposal]]:
        return self.writer.propose([replace(r, state=without_end(r.state)) for r in requests])


def without_end(state: State) -> State:
    """The end of an episode whose page is hidden."""
    *before, last = state.history
    history = (*before, replace(last, observation=HIDDEN))
    return replace(state, observation=HIDDEN, history=history)


def judge_of(lm: Any, name: str, longest: int) -> Judge:
    """The judge that a chat model is, greedily decoded.

    lm: a local or served model, as it is loaded. longest: of a verdict, in tokens.

    Raises:
        QvlibError: it is no chat model, such as a cloned one.
    """
    from qvlib.models.writing import talks, writer

    if not talks(lm):
        raise QvlibError(
            f"evaluator: {name} is no chat model and can judge nothing; name one in "
            "evaluator_model, such as api:MODEL or smollm2"
        )
    return Judge(writer(lm, ROLE, lambda _: ASKED, longest, 0.0, 1.0))
