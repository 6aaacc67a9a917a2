"""What a chat model is asked about the end of an episode, and the number in its reply.

As in Autonomous Evaluation and Refinement (arXiv 2404.06474): the instruction, the actions and the
last page, from text alone. The page is the one before the last action: in some worlds the page of
the end tells the reward.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.types import Agent, State
from qvlib.models.chat import Chat, ChatPrompt, page
from qvlib.models.replies import said
from qvlib.models.templates import Message, render, system_says, user_says

VERDICT = "Verdict:"
INSTRUCTIONS = (
    "You judge an agent. You are told what it was asked to do, all that it did, and the last page "
    "that it saw before its last action, which ended the episode. Reply with one number between 0 "
    "and 1: how far the end fulfils what was asked. 1 is all of it, 0 is nothing. Reply with "
    f"`{VERDICT} ` and the number, nothing else."
)
_NUMBER = re.compile(r"(?<![\w.-])(\d*\.?\d+)(\s*(?:[/%]|out of))?", re.IGNORECASE)


def verdict(reply: str) -> float | None:
    """The first number of a reply behind its thoughts, in [0, 1]; None where it is no such one."""
    found = _NUMBER.search(reply[slice(*said(reply))])
    if found is None or found[2]:  # a percentage, or 3/10
        return None
    value = float(found[1])
    return value if value <= 1 else None


@dataclass(frozen=True)
class VerdictStyle(Chat):
    """The prompt style of a judge: end of an episode -> prompt; else as ``Chat``."""

    def __call__(self, state: State) -> ChatPrompt:
        text = ""
        for turns in self._shorter_and_shorter(state):
            text = render(self.tokenizer, turns, "" if self.thoughts else VERDICT)
            if self.length(text) <= self.budget:
                break
        return ChatPrompt(text, self.thoughts)

    def _shorter_and_shorter(self, state: State) -> Iterator[list[Message]]:
        """With the page, with its first half, quarter, ..., without it."""
        task, steps = state.task, state.history
        seen = page(steps[-2].observation if len(steps) > 1 else self.first(task), task)
        done = "\n".join(
            f"{i}. {s.action}{self._quote(s.described)}" for i, s in enumerate(steps, 1)
        )
        while True:
            asked = f"Task: {task.instruction}\nActions:\n{done}\nLast page:\n{seen}"
            yield [system_says(INSTRUCTIONS), user_says(asked)]
            if not seen:
                return
            seen = seen[: len(seen) // 2]


def judge_of(lm: Any, name: str, longest: int) -> Agent:
    """The agent whose one action, asked at an end, is its greedy verdict as text.

    lm: a local or served model, as it is loaded. longest: of a verdict, in tokens.

    Raises:
        QvlibError: it is no chat model, such as a cloned one.
    """
    if not isinstance(lm.style, Chat):
        raise QvlibError(
            f"evaluator: {name} is no chat model and can judge nothing; name one in "
            "evaluator_model, such as api:MODEL or smollm2"
        )
    style = VerdictStyle(**{f.name: getattr(lm.style, f.name) for f in fields(Chat)})
    if hasattr(lm, "client"):
        from qvlib.models.api import ApiAgent

        return ApiAgent(
            lm.client,
            style.messages,
            lambda reply, state: reply,
            temperature=0.0,
            max_tokens=longest,
            extra=lm.extra,
            unparsable=lambda reply, state: verdict(reply) is None,
            shorter=style.messages,
        )
    from qvlib.models.local import LocalModel

    return LocalModel(lm.model, lm.tokenizer, style, longest).agent(0.0, 1.0)
