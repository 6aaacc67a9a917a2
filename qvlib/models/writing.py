"""A chat model that is asked about a state and answers in words, where an agent gives an action."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qvlib.core.types import Agent, State
from qvlib.models.chat import Chat
from qvlib.models.prompts import Prompt
from qvlib.models.replies import said
from qvlib.models.templates import Message, system_says, user_says


@dataclass(frozen=True, slots=True)
class Words(Prompt):
    """A prompt whose reply is taken as words."""

    def decode(self, reply: str) -> str:
        """What it says, see ``words_of``."""
        return words_of(reply)


@dataclass(frozen=True)
class Question(Chat):
    """The conversation of a state, closed by a question in the place of the next action.

    role: what the system message says besides the environment's instructions. ask: state -> the
    question; it is never cut. Examples are left out: their actions would be taken for the trial's.
    """

    role: str = ""
    ask: Callable[[State], str] = str

    def __call__(self, state: State) -> Words:
        return Words(super().__call__(state).text)

    def _opening(self, examples: bool = True) -> list[Message]:
        return [system_says(f"{self.instructions}\n{self.role}".strip())]

    def _shorter_and_shorter(self, state: State) -> Iterator[list[Message]]:
        for turns in super()._shorter_and_shorter(state):
            yield [*turns[:-1], user_says(f"{turns[-1]['content']}\n\n{self.ask(state)}")]


def talks(lm: Any) -> bool:
    """Whether a model, local or served, is talked to in a chat."""
    return isinstance(lm.style, Chat)


def writer(
    lm: Any, role: str, ask: Callable[[State], str], tokens: int, temperature: float, top_p: float
) -> Agent:
    """An agent whose proposals are texts: what the chat model ``lm`` answers about a state.

    lm: a ``LocalModel`` or a ``RemoteModel`` that ``talks``. role, ask: of a ``Question``. tokens:
    longest answer. Their cost is counted as that of actions is; no answer is unparsable.
    """
    chat = lm.style
    style = Question(
        chat.tokenizer,
        chat.instructions,
        chat.first,
        thoughts=True,  # the answer begins with no "Action:"
        budget=chat.budget,
        words=chat.words,
        role=role,
        ask=ask,
    )
    if hasattr(lm, "client"):
        from qvlib.models.api import ApiAgent

        return ApiAgent(
            lm.client,
            style.messages,
            lambda reply, state: words_of(reply),
            temperature,
            top_p,
            tokens,
            extra=lm.extra,
            shorter=style.messages,
        )
    from qvlib.models.local import LocalModel

    model = LocalModel(lm.model, lm.tokenizer, style, tokens, batch_tokens=lm.batch_tokens)
    return model.agent(temperature, top_p)


def words_of(reply: str) -> str:
    """What a written reply says in one line: without thoughts and marks of segments."""
    return " ".join(reply[slice(*said(reply))].replace("[SEP]", " ").split())
