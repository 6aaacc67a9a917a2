"""A noisy scripted reader: the demonstrator that small agents are cloned from.

It knows the articles that support the answer and reads them in order: search, a lookup where a
search does not show the sentence, finish. It is fallible as people are: it opens an article of a
similar title and takes it for the right one, types a part of a title, skips a lookup, stops early,
gives more or less than the answer. It errs in some episodes and takes care in the others, so that
who learns from it can learn both what is right and how one fails.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.types import Proposal, Request, State
from qvlib.environments.hotpotqa.corpus import pieces
from qvlib.environments.hotpotqa.environment import MISS, HotPotQA, parse
from qvlib.environments.hotpotqa.metric import normalise
from qvlib.environments.hotpotqa.questions import Question

_WORD = re.compile(r"\w+")
NAME = re.compile(r"[A-Z][\w'-]*(?: (?:(?:of|the|and|de|van) )*[A-Z][\w'-]*)*|\b\d{3,4}\b")
_PRONOUNS = frozenset("A An He His Her In It Its On She The Their They This".split())
_CLOSED = re.compile(r"(?:are|is|was|were|do|does|did|has|have|can) ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Habits:
    """Probabilities of the reader's errors.

    careless: that it errs in an episode at all. In such an episode:
    similar: that it searches a title that resembles the one it needs; shorten: that it searches a
        part of it.
    trust: that it takes a wrong article for the right one: it answers from it, where it would else
        search again.
    early: that it answers from the page it is on before it has read all it needs.
    skim: that it answers without the lookup it needs.
    other: that it answers wrongly although it has read all; form: that it gives more or less than
        the answer.
    wander: that it opens or looks up something else that the page names.
    """

    careless: float = 0.6
    similar: float = 0.4
    shorten: float = 0.15
    trust: float = 0.8
    early: float = 0.3
    skim: float = 0.8
    other: float = 0.4
    form: float = 0.2
    wander: float = 0.15

    def scaled(self, errors: float) -> Habits:
        """So many times as many episodes in which it errs, at most all."""
        return replace(self, careless=min(1.0, errors * self.careless))


FAULTLESS = Habits(*[0.0] * len(fields(Habits)))


@dataclass(frozen=True)
class Reader:
    """A scripted agent for HotPotQA; its draws derive from the request's key.

    With ``gold`` it makes no errors. A question without supporting articles it answers at once,
    with ``gold`` rightly.
    """

    environment: HotPotQA
    habits: Habits = Habits()
    gold: bool = False

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [
            [
                Proposal(
                    self._act(request.state, self._habits(request), generator(*request.key, k))
                )
                for k in range(request.n)
            ]
            for request in requests
        ]

    def _habits(self, request: Request) -> Habits:
        """Those of the request's episode, which its key begins with: (seed, task)."""
        careless = (
            not self.gold and generator(*request.key[:2], "care").random() < self.habits.careless
        )
        return self.habits if careless else FAULTLESS

    def _act(self, state: State, habits: Habits, rng: np.random.Generator) -> str:
        question: Question = state.task.goal
        named = names_shown(state)
        if named and rng.random() < habits.wander:
            return f"{'lookup' if rng.random() < 0.3 else 'search'}[{rng.choice(named)}]"
        if (
            state.world.title
            and state.world.title not in question.titles
            and rng.random() < habits.trust
        ):
            return self._guess(state, rng)
        wanted = self._next(state)
        if wanted is None:
            return self._answer(state, habits, rng)
        title, sentence = wanted
        if state.world.title == title:
            skims = rng.random() < habits.skim
            return (
                self._guess(state, rng)
                if skims
                else _lookup(self.environment.corpus.text(title), sentence, question.text)
            )
        if state.history and rng.random() < habits.early:
            return self._guess(state, rng)
        return f"search[{self._typed(title, habits, rng)}]"

    def _next(self, state: State) -> tuple[str, str] | None:
        """(title, sentence) of the first thing needed that was not shown yet; None if all was."""
        question: Question = state.task.goal
        searched = {
            self.environment.corpus.find(argument): step.observation.startswith(MISS)
            for step in state.history
            for verb, argument in (parse(step.action),)
            if verb == "search"
        }
        observed = [_letters(step.observation) for step in state.history]
        for title in reading_order(question):
            if searched.get(title):  # it cannot be opened
                continue
            unread = [
                s
                for s in _sentences(self.environment, question, title)
                if not any(_letters(s) in o for o in observed)
            ]
            if title not in searched or unread:
                return title, unread[0] if unread else ""
        return None

    def _typed(self, title: str, habits: Habits, rng: np.random.Generator) -> str:
        draw = rng.random()
        if draw < habits.similar:
            others = [t for t in self.environment.corpus.similar(title) if t != title]
            return str(rng.choice(others)) if others else title
        parts = title.split()
        if draw < habits.similar + habits.shorten and len(parts) > 1:
            return parts[-1] if rng.random() < 0.5 else " ".join(parts[:-1])
        return title

    def _answer(self, state: State, habits: Habits, rng: np.random.Generator) -> str:
        answer = state.task.goal.answer
        if rng.random() < habits.other:
            return self._guess(state, rng)
        if rng.random() < habits.form and answer not in ("yes", "no"):
            words = answer.split()
            return f"finish[{' '.join(words[:-1]) if len(words) > 1 else f'in {answer}'}]"
        return f"finish[{answer}]"

    def _guess(self, state: State, rng: np.random.Generator) -> str:
        """Yes or no, one of the two compared, or something that the page names; seldom right."""
        question: Question = state.task.goal
        if _CLOSED.match(question.text):
            return f"finish[{rng.choice(('yes', 'no'))}]"
        names = [
            n for n in NAME.findall(question.text)[1:] if " " in n
        ]  # the first is the question's first word
        named = names if question.kind == "comparison" and names else names_shown(state)
        dated = "year" in question.text or question.text.startswith("When")
        fitting = [n for n in named if n.isdigit() == dated] or named or names or ["unknown"]
        return f"finish[{rng.choice(fitting)}]"


def reading_order(question: Question) -> tuple[str, ...]:
    """The supporting titles, one that the question names first, else in the file's order."""
    asked = f" {normalise(question.text)} "
    titles = list(question.titles)
    first = next((t for t in titles if f" {normalise(t)} " in asked), None)
    if first is not None:
        titles.remove(first)
        titles.insert(0, first)
    return tuple(titles)


def _sentences(environment: HotPotQA, question: Question, title: str) -> list[str]:
    """The supporting pieces of an article; sentence numbers beyond its pieces are ignored."""
    cut = pieces(environment.corpus.text(title))
    return [cut[at] for name, at in question.facts if name == title and 0 <= at < len(cut)]


def _lookup(text: str, sentence: str, question: str) -> str:
    """Look up the word of a sentence that the fewest pieces hold, no name if there is another word.

    Only who has read the sentence knows its names. Of several words it is one that the question has
    in some form, else the first of the longest.
    """
    cut = [piece.lower() for piece in pieces(text)]
    words = [w for w in _WORD.findall(sentence) if not w.isdigit()] or _WORD.findall(sentence)
    if not words:
        return "lookup[]"
    stems = {w[:4].lower() for w in _WORD.findall(question) if len(w) >= 4}

    def rank(word: str) -> tuple[bool, int, bool, int]:
        return (
            word[0].isupper(),
            sum(word.lower() in piece for piece in cut),
            word[:4].lower() not in stems,
            -len(word),
        )

    return f"lookup[{min(words, key=rank)}]"


def names_shown(state: State) -> list[str]:
    """Names and years on the page, without those of the question and the article itself."""
    known = normalise(state.task.instruction)
    if not state.history or state.observation.startswith(MISS):
        return []
    names = dict.fromkeys(NAME.findall(state.observation))
    return [
        n
        for n in names
        if n not in _PRONOUNS and normalise(n) not in known and n != state.world.title
    ]


@functools.lru_cache(1 << 14)
def _letters(text: str) -> str:
    """Only letters and digits, so that texts cut at different places can be compared."""
    return "".join(_WORD.findall(text.lower()))
