"""Asking a chat model in words how likely an action is to lead to success; nothing is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qvlib.core.types import Request, State
from qvlib.models.chat import Chat
from qvlib.models.local import Ids, LocalModel
from qvlib.models.remote import RemoteModel
from qvlib.models.replies import THOUGHT_END
from qvlib.models.templates import Message, render, system_says, tail, user_says
from qvlib.models.tokenizers import continued

JUDGE = "You judge what an agent is about to do."
QUESTION = (
    "The agent is about to do: {action}\n"
    "Will the task be completed with full success if it does that now? {how}"
)
WORDS, NUMBER = (
    "Reply with `Answer: Yes` or `Answer: No`, nothing else.",
    "Reply with one number from 0 (surely not) to 100 (surely), nothing else.",
)
BEGUN, YES, NO = "Answer:", " Yes", " No"
UNREAD = 0.5
_FIRST_NUMBER = re.compile(r"(?<![\d.,-])\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Question:
    """Is this action one that leads to success in this state? how: ``WORDS`` or ``NUMBER``."""

    state: State
    action: str
    how: str

    def messages(self, style: Chat, halvings: int = 0) -> list[Message]:
        """The conversation up to the state, by other rules, and the question at its end."""
        _, *turns, last = style.messages(self.state, halvings)
        action = self.action + style.quotes(self.state).get(self.action, "")
        asked = f"{last['content']}\n\n{QUESTION.format(action=action, how=self.how)}"
        rules = f"{style.instructions}\n{JUDGE}".strip()
        return [system_says(rules), *turns, user_says(asked)]


@dataclass
class Words:
    """P(Yes) / (P(Yes) + P(No)) of a local model, in [0, 1]: the probability it gives success."""

    lm: LocalModel
    unread: int = 0  # each answer can be read

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        prompts, replies = [], []
        for question in _questions(states, actions, WORDS):
            text = _text(self.lm, question, BEGUN)
            prompts.append(_ids(self.lm, text))
            tokenizer, before = self.lm.tokenizer, tail(text)
            replies.append([tuple(continued(tokenizer, before, word)) for word in (YES, NO)])
        log_probs = self.lm.log_probs(prompts, replies)
        return _rows([1 / (1 + math.exp(min(no - yes, 700.0))) for yes, no in log_probs], actions)


@dataclass
class Number:
    """The number that a model replies, greedily, as a share of 100.

    A reply without a number from 0 to 100 counts one half, and ``unread`` counts it.
    """

    lm: LocalModel | RemoteModel
    unread: int = 0

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        questions = list(_questions(states, actions, NUMBER))
        replies = _served if isinstance(self.lm, RemoteModel) else _sampled
        known = [number(reply) for reply in replies(self.lm, questions)]
        self.unread += known.count(None)
        return _rows([UNREAD if value is None else value for value in known], actions)


def number(reply: str) -> float | None:
    """The first number after a thought, as a share of 100; None where it is not in [0, 100]."""
    found = _FIRST_NUMBER.search(THOUGHT_END.split(reply)[-1])
    share = float(found[0]) / 100 if found else math.inf
    return share if share <= 1 else None


def _questions(
    states: Sequence[State], actions: Sequence[Sequence[str]], how: str
) -> Iterator[Question]:
    for state, candidates in zip(states, actions, strict=True):
        for action in candidates:
            yield Question(state, action, how)


def _rows(values: Sequence[float], actions: Sequence[Sequence[str]]) -> list[list[float]]:
    left = iter(values)
    return [[next(left) for _ in candidates] for candidates in actions]


def _text(lm: LocalModel, question: Question, begun: str = "") -> str:
    """The question as the model reads it, cut to the style's budget by halves of the state."""
    style: Any = lm.style
    for halvings in range(style.budget.bit_length()):
        text = render(lm.tokenizer, question.messages(style, halvings), begun)
        if style.length(text) <= style.budget:
            break
    return text


def _ids(lm: LocalModel, text: str) -> Ids:
    return tuple(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def _sampled(lm: LocalModel, questions: Sequence[Question]) -> list[str]:
    prompts = [_ids(lm, _text(lm, question)) for question in questions]
    replies = lm.sample(prompts, [[None]] * len(prompts), 1.0, 1.0)
    return [lm.tokenizer.decode(ids, skip_special_tokens=True) for ((ids, _),) in replies]


def _served(lm: RemoteModel, questions: Sequence[Question]) -> list[str]:
    from qvlib.models.api import ApiAgent

    ask: Callable[..., Any] = ApiAgent(
        lm.client,
        messages=lambda question: question.messages(lm.style),
        parse=lambda reply, _: reply,
        temperature=0.0,
        max_tokens=lm.max_action_tokens,
        extra=lm.extra,
        shorter=lambda question, halvings: question.messages(lm.style, halvings),
    ).propose
    asked: list[Any] = [
        Request(question, 1, (0, question.state.task.id, "")) for question in questions
    ]
    return [proposals[0].action for proposals in ask(asked)]
