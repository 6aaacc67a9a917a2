"""ReAct prompts (arXiv 2210.03629) for instruction-tuned models, by the model's chat template.

A conversation: the environment's instructions, an example or none, the task, then actions and
observations in turn. It only grows at its end, so that a prompt starts with the prompt of the step
before, whose key-value cache serves again (``prefixes``). Thoughts are read and left out of the
history: what is scored, kept and replayed is the action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qvlib.core.types import State, Task
from qvlib.models.prompts import cut, described
from qvlib.models.replies import ACTION, THOUGHT, parse
from qvlib.models.templates import (
    Message,
    assistant_says,
    render,
    system_says,
    tail,
    thought_end,
    user_says,
)

LEFT_OUT = "(left out)"
BYTES_A_TOKEN = 3  # of a text whose tokenizer is a server's affair


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The text a model reads.

    Without thoughts it ends with ``Action:``, and a reply is the action alone. quotes: admissible
    action -> what its reply quotes of the page behind it, where it is an identifier.
    """

    text: str
    thoughts: bool = False
    quotes: Mapping[str, str] = field(default_factory=dict)

    @property
    def tail(self) -> str:
        """The end of the text, after which a reply has its tokens."""
        return tail(self.text)

    def encode(self, action: str) -> str:
        """The reply that stands for an action; it closes a thought that the text has opened."""
        reply = action + self.quotes.get(action, "")
        return f"{thought_end(self.tail)}{ACTION} {reply}" if self.thoughts else f" {reply}"

    def decode(self, reply: str) -> str:
        """The action of a reply; of one that names none, its text."""
        return parse(reply)


@dataclass(frozen=True)
class Chat:
    """The prompt style of chat models: state -> prompt.

    instructions: what the environment is and how actions are written; may be empty.
    first: the first observation of a task.
    examples: the last states of demonstrated episodes, shown before the task.
    thoughts: ask for a thought before each action.
    words: most that a reply quotes, in brackets, of what an identifier stands for; 0 = the
        published form, the bare action.
    budget: most tokens of a prompt; without a tokenizer, a token is taken for three bytes. What is
        too long loses whole observations, oldest first, then whole steps, then the examples; the
        newest observation stays, and loses lines from its end only where it does not fit by itself.
        Actions are never cut.
    """

    tokenizer: Any
    instructions: str
    first: Callable[[Task], str]
    examples: tuple[State, ...] = ()
    thoughts: bool = False
    budget: int = 2048
    words: int = 0

    def __call__(self, state: State) -> ChatPrompt:
        text = ""
        for turns in self._shorter_and_shorter(state):
            text = render(self.tokenizer, turns, "" if self.thoughts else ACTION)
            # No token is shorter than a byte, but for some of the special ones, which stand for
            # many.
            if len(text.encode()) <= self.budget or self.length(text) <= self.budget:
                break
        return ChatPrompt(text, self.thoughts, self.quotes(state))

    def messages(self, state: State, halvings: int = 0) -> list[Message]:
        """The conversation of a state as a server takes it, cut to the halved budget."""
        longest = BYTES_A_TOKEN * (self.budget >> halvings)
        turns: list[Message] = []
        for turns in self._shorter_and_shorter(state):
            if sum(len(turn["content"].encode()) for turn in turns) <= longest:
                break
        return turns

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def quotes(self, state: State) -> dict[str, str]:
        """Admissible action -> what its reply quotes, where that is anything."""
        return {action: self._quote(said) for action, said in described(state, self.words).items()}

    def _quote(self, description: str) -> str:
        said = cut(description, self.words)
        return f" ({said})" if said else ""

    def _opening(self, examples: bool = True) -> list[Message]:
        how = (
            f"Reply with one line `{THOUGHT} ` and your reasoning, then one line `{ACTION} ` and "
            "one action."
            if self.thoughts
            else f"Reply with `{ACTION} ` and one action, nothing else."
        )
        shown = self.examples if examples else ()
        turns = [turn for example in shown for turn in self._turns(example)[:-1]]
        return [system_says(f"{self.instructions}\n{how}".strip()), *turns]

    def _turns(self, state: State) -> list[Message]:
        """The task, then what was done and seen."""
        task = state.task
        turns = [
            user_says(f"Task: {task.instruction}\nObservation: {page(self.first(task), task)}")
        ]
        for step in state.history:
            turns += [
                assistant_says(f"{ACTION} {step.action}{self._quote(step.described)}"),
                user_says(f"Observation: {page(step.observation, task)}"),
            ]
        return turns

    def _shorter_and_shorter(self, state: State) -> Iterator[list[Message]]:
        opening, turns, steps = self._opening(), self._turns(state), len(state.history)
        yield opening + turns
        blank = [_without_page(turn) for turn in turns]
        for gone in range(1, steps + 1):  # observations; a step is two turns
            yield opening + blank[: 2 * gone] + turns[2 * gone :]
        for gone in range(1, steps):  # steps; the task stays
            yield opening + blank[:1] + blank[1 + 2 * gone : -1] + turns[-1:]
        shortest = self._opening(examples=False) + (blank[:1] + turns[-2:] if steps else turns)
        yield shortest
        lines = turns[-1]["content"].split("\n")
        for kept in range(len(lines) - 1, 0, -1):
            yield [*shortest[:-1], user_says("\n".join(lines[:kept]))]


def page(observation: str, task: Task) -> str:
    """An observation without the instruction it repeats, a segment a line."""
    segments = (part.strip() for part in observation.replace(task.instruction, "").split("[SEP]"))
    return "\n".join(part for part in segments if part and part != "Instruction:")


def _without_page(turn: Message) -> Message:
    if turn["role"] != "user":
        return turn
    head, _, _ = turn["content"].partition("Observation: ")
    return user_says(f"{head}Observation: {LEFT_OUT}")
