"""The least that an agent must beat on questions: a fixed script of two searches, no model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.core.types import Proposal, Request, State
from qvlib.environments.hotpotqa.environment import HotPotQA, parse
from qvlib.environments.hotpotqa.reader import NAME, names_shown

_SENTENCE = re.compile(r"(?<=[.!?]) +")
_WORD = re.compile(r"[a-z]+")
_CLOSED = re.compile(r"(?:are|is|was|were|do|does|did|has|have|can) ", re.IGNORECASE)
_COMMON = frozenset(
    "a an and are as at by did do does for has have he her his in is it its of on or that the to "
    "was were what where which who with".split()
)


@dataclass(frozen=True)
class Script:
    """Searches the first name in the question, then the first new name that seems to answer it.

    That is the first in the sentence that shares most words with the question. It answers with the
    one that the second article gives so; with yes where the question is a closed one or nothing is
    found; with the last name of a question that offers several. It asks no model, and weighs
    nothing but shared words.
    """

    environment: HotPotQA

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [[Proposal(_act(request.state))] * request.n for request in requests]


def _act(state: State) -> str:
    question = state.task.instruction
    asked = NAME.findall(question.partition(" ")[2])  # a first word is capitalised anyway
    if _CLOSED.match(question):
        return "finish[yes]"
    if " or " in question and len(asked) > 1:
        return f"finish[{asked[-1]}]"
    if not state.history:
        return f"search[{next(filter(_is_name, asked), question.partition(' ')[0])}]"
    new = _first_new(state)
    if len(state.history) == 1 and new and _is_name(new):
        return f"search[{new}]"
    return f"finish[{new or 'yes'}]"


def _first_new(state: State) -> str:
    """The first new name in the sentence with most words of the question; "" where none is."""
    wanted = _words(state.task.instruction)
    searched = [parse(step.action)[1] for step in state.history]
    new = [name for name in names_shown(state) if not any(name in title for title in searched)]
    sentences = [s for s in _SENTENCE.split(state.observation) if any(name in s for name in new)]
    if not sentences:
        return ""
    told = max(sentences, key=lambda s: len(_words(s) & wanted))
    return min((name for name in new if name in told), key=told.index)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - _COMMON


def _is_name(name: str) -> bool:
    """Is it a name, where ``NAME`` finds years too?"""
    return not name.isdigit()
