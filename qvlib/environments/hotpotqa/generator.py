"""The embedded encyclopaedia: a seeded generator of articles and questions, in official format.

Articles come in communities of twenty: towns, people, films, novels, companies and so on that name
each other, and nobody outside. A question needs the articles of one community only, so communities
fall into splits whole, and every article that a test question needs is one that no training
question needed.

Made to mislead: films of one adjective and one with a near copy of another's title, namesakes in
every community, titles that are parts of others (a town, its university, its festival), directors
beside stars, facts in the sixth sentence, which only a lookup shows.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.seeding import generator
from qvlib.environments.hotpotqa import vocabulary
from qvlib.environments.hotpotqa.environment import SHOWN
from qvlib.environments.hotpotqa.metric import normalise
from qvlib.environments.hotpotqa.vocabulary import (
    FACTS,
    FILLERS,
    FIRST_OF,
    NAMED,
    OF_KIND,
    SAME,
    SENTENCES,
    Fact,
)

FILES = ("hotpot_embedded_v1.json", "corpus.jsonl")
COMMUNITY = (
    ("town", 3),
    ("university", 2),
    ("company", 2),
    ("festival", 1),
    ("person", 5),
    ("film", 3),
    ("novel", 2),
    ("band", 1),
    ("album", 1),
)
ARTICLES = sum(count for _, count in COMMUNITY)  # of a community
PER_ARTICLE = 4  # questions
SHARES = {"two hops": 0.4, "three hops": 0.25, "first": 0.13, "first of two": 0.12, "same": 0.1}
LONGEST = 7  # steps of a gold path
SENTENCES_OF_ARTICLE = (3, 6)
DISTRACTORS = 2


@dataclass
class Article:
    """An article in the making: facts (name -> value), later the sentence of each fact stated."""

    kind: str
    title: str
    facts: dict[str, str] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    stated: dict[str, int] = field(default_factory=dict)

    @property
    def named(self) -> str:
        return NAMED[self.kind].format(self.title)


Chain = tuple[tuple[Article, Fact], ...]


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and the (title, sentence) pairs that answer it, in reading order."""

    text: str
    answer: str
    facts: tuple[tuple[str, int], ...]
    kind: str

    def steps(self) -> int:
        """Of the gold path: a search an article, a lookup a fact that no search shows, finish."""
        return (
            len({title for title, _ in self.facts}) + sum(at >= SHOWN for _, at in self.facts) + 1
        )


def write_encyclopaedia(folder: Path, articles: int, seed: int) -> None:
    """Write ``FILES`` into ``folder``: about so many articles, and four times as many questions.

    Raises:
        QvlibError: fewer articles than a community has, or more than there are names for.
    """
    towns = len(vocabulary.STEMS) * len(vocabulary.ENDINGS) * (1 + len(vocabulary.OLDER))
    most = towns // dict(COMMUNITY)["town"] * ARTICLES
    if not ARTICLES <= articles <= most:
        raise QvlibError(
            f"articles {articles}: the encyclopaedia is made of communities of {ARTICLES} and has "
            f"names for {most} articles; give a number from {ARTICLES} to {most}"
        )
    names = _Names(seed)
    texts: list[dict[str, Any]] = []
    questions: list[dict[str, Any]] = []
    for number in range(articles // ARTICLES):
        rng = generator(seed, "encyclopaedia", "community", number)
        community = _community(names, rng)
        texts += [{"title": a.title, "text": " ".join(a.sentences)} for a in community]
        questions += [_record(asked, community, rng) for asked in _questions(community, rng)]
    order = generator(seed, "encyclopaedia", "order")
    questions = [questions[i] for i in order.permutation(len(questions))]
    questions = [{"_id": f"e{number:06d}"} | question for number, question in enumerate(questions)]
    texts = [texts[i] for i in order.permutation(len(texts))]
    official = "[\n" + ",\n".join(map(json.dumps, questions)) + "\n]\n"
    for name, content in zip(
        FILES, (official, "".join(json.dumps(t) + "\n" for t in texts)), strict=True
    ):
        write_atomic(folder / name, content)


class _Names:
    """Names that were not given yet; their beginning is the same whatever the size."""

    def __init__(self, seed: int) -> None:
        def drawn(what: str, *parts: Sequence[str]) -> Iterator[tuple[str, ...]]:
            sizes = [len(p) for p in parts]
            for i in generator(seed, "encyclopaedia", what).permutation(int(np.prod(sizes))):
                yield tuple(p[j] for p, j in zip(parts, np.unravel_index(i, sizes), strict=True))

        towns = (("", a, b) for a, b in drawn("towns", vocabulary.STEMS, vocabulary.ENDINGS))
        older = (
            (a + " ", b, c)
            for a, b, c in drawn(
                "older towns", vocabulary.OLDER, vocabulary.STEMS, vocabulary.ENDINGS
            )
        )
        self._towns = map("".join, itertools.chain(towns, older))
        self._people = itertools.chain(
            drawn("people", vocabulary.FIRST, vocabulary.LAST),
            drawn("more people", vocabulary.FIRST, vocabulary.FIRST, vocabulary.LAST),
        )
        things = drawn("things", vocabulary.ADJECTIVES, vocabulary.NOUNS)
        more = drawn("more things", vocabulary.ADJECTIVES, vocabulary.ADJECTIVES, vocabulary.NOUNS)
        self._things = itertools.chain(things, (t for t in more if t[0] != t[1]))
        self._taken: set[tuple[str, ...]] = set()

    def town(self) -> str:
        return next(self._towns)

    def person(self) -> tuple[str, ...]:
        """First names and last name."""
        return self._new(lambda: next(self._people))

    def namesake(self, last: str, rng: np.random.Generator) -> tuple[str, ...]:
        """Another person of that last name."""
        return self._like(
            [(first, last) for first in rng.permutation(vocabulary.FIRST)], self.person
        )

    def thing(self) -> tuple[str, ...]:
        """Adjectives and noun."""
        return self._new(lambda: next(self._things))

    def like(self, adjective: str, rng: np.random.Generator) -> tuple[str, ...]:
        """Another thing of that adjective."""
        return self._like(
            [(adjective, noun) for noun in rng.permutation(vocabulary.NOUNS)], self.thing
        )

    def _new(self, draw: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        while (name := draw()) in self._taken:
            pass
        self._taken.add(name)
        return name

    def _like(
        self, wanted: Sequence[tuple[str, ...]], otherwise: Callable[[], tuple[str, ...]]
    ) -> tuple[str, ...]:
        for parts in wanted:
            name = tuple(map(str, parts))
            if name not in self._taken:
                self._taken.add(name)
                return name
        return otherwise()


def _community(names: _Names, rng: np.random.Generator) -> list[Article]:
    """Twenty written articles."""
    made = {
        kind: [Article(kind, title) for title in titles]
        for kind, titles in _titles(names, rng).items()
    }
    people = made["person"]
    for pair in (people[:2], people[2:4]):
        for one, other in (pair, pair[::-1]):
            one.facts["spouse"] = other.title
    for article in itertools.chain(*made.values()):
        for fact in OF_KIND[article.kind]:
            article.facts.setdefault(fact.name, _value(article, fact, made, rng))
        if not article.facts.get("spouse", "single"):
            del article.facts["spouse"]
        _write(article, rng)
    return list(itertools.chain(*made.values()))


def _titles(names: _Names, rng: np.random.Generator) -> dict[str, list[str]]:
    """The titles of a community by kind."""
    towns = [names.town() for _ in range(3)]
    people = [names.person() for _ in range(4)]
    people.insert(2, names.namesake(people[0][-1], rng))
    film = names.thing()
    other, novel = names.like(film[0], rng), names.thing()
    return {
        "town": towns,
        "university": [f"University of {town}" for town in towns[:2]],
        "company": [f"{' '.join(names.thing())} Company" for _ in range(2)],
        "festival": [f"{towns[2]} Festival"],
        "person": [" ".join(parts) for parts in people],
        "film": [
            f"The {' '.join(film)}",
            f"The {' '.join(other)}",
            f"The {' '.join(film)} Returns",
        ],
        "novel": [f"The {film[-1]} of {towns[0]}", f"The {novel[-1]} of {towns[1]}"],
        "band": [f"The {' '.join(names.thing())}s"],
        "album": [f"Songs of {towns[int(rng.integers(3))]}"],
    }


def _value(
    article: Article, fact: Fact, made: dict[str, list[Article]], rng: np.random.Generator
) -> str:
    """A value for a fact: a word, or another article of the community, one not yet named if any."""
    if fact.name == "spouse":
        return ""
    if fact.name == "year":
        early = 1300 if article.kind == "town" else 1900
        return str(rng.integers(early, early + 100))
    if not fact.target:
        pool = {
            "award": vocabulary.AWARDS,
            "country": vocabulary.COUNTRIES,
            "river": vocabulary.RIVERS,
            "goods": vocabulary.GOODS,
        }[fact.name]
        return str(rng.choice(pool))
    others = [a.title for a in made[fact.target] if a is not article]
    fresh = [title for title in others if title not in article.facts.values()]
    return str(rng.choice(fresh or others))


def _write(article: Article, rng: np.random.Generator) -> None:
    """Sentences with most of the article's facts, among them some that say nothing."""
    blanks = article.facts | {
        "title": article.title,
        "short": article.title.split()[-1],
        "job": str(rng.choice(vocabulary.JOBS)),
        "genre": str(rng.choice(vocabulary.GENRES.get(article.kind, ("",)))),
        "day": str(rng.choice(vocabulary.DAYS)),
    }
    least, most = SENTENCES_OF_ARTICLE
    can = [
        (text, facts)
        for text, facts in SENTENCES[article.kind]
        if all(name in article.facts for name in facts)
    ]
    said = [can[0], *(s for s in can[1:] if rng.random() < 0.9)]
    fillers = [(text, ()) for text in rng.permutation(FILLERS[article.kind])]
    while len(said) < least or (fillers and len(said) < most and rng.random() < 0.5):
        said.insert(int(rng.integers(1, len(said) + 1)), fillers.pop())
    for at, (text, facts) in enumerate(said):
        article.sentences.append(str(text).format(**blanks) + ".")
        article.stated |= dict.fromkeys(facts, at)


def _questions(community: Sequence[Article], rng: np.random.Generator) -> Iterator[Asked]:
    """Questions that are short enough and do not hold their answers, by ``SHARES``, each once."""
    by_title = {a.title: a for a in community}
    paths = {
        hops: [path for start in community for path in _paths(start, by_title, hops)]
        for hops in (1, 2, 3)
    }
    kinds = {
        "two hops": map(_bridge, _shuffled(paths[2], rng)),
        "three hops": map(_bridge, _shuffled(paths[3], rng)),
        "first": itertools.starmap(_first, _pairs(paths[1], rng)),
        "first of two": itertools.starmap(_first, _pairs(paths[2], rng)),
        "same": _sames(community, rng),
    }
    asked: set[str] = set()
    for kind, share in SHARES.items():
        good = (q for q in kinds[kind] if q and q.steps() <= LONGEST and q.text not in asked)
        for question in itertools.islice(good, round(share * PER_ARTICLE * len(community))):
            asked.add(question.text)
            yield question


def _shuffled(values: Sequence[Any], rng: np.random.Generator) -> Iterator[Any]:
    return (values[i] for i in rng.permutation(len(values)))


def _paths(start: Article, by_title: dict[str, Article], hops: int) -> Iterator[Chain]:
    """Chains of stated facts from an article; each but the last names the next, none recurs."""
    for fact in OF_KIND[start.kind]:
        if fact.name not in start.stated:
            continue
        if hops == 1:
            yield ((start, fact),)
        elif fact.target:
            for rest in _paths(by_title[start.facts[fact.name]], by_title, hops - 1):
                if all(article is not start for article, _ in rest):
                    yield ((start, fact), *rest)


def _cited(path: Chain) -> tuple[tuple[str, int], ...]:
    return tuple((article.title, article.stated[fact.name]) for article, fact in path)


def _name(path: Chain) -> str:
    """What the last fact of a path is about, named from the path's start."""
    named = path[0][0].named
    for _, fact in path[:-1]:
        named = fact.phrase.format(named)
    return named


def _bridge(path: Chain) -> Asked | None:
    """The value at the end of a path; None if the question would name it."""
    article, fact = path[-1]
    text, answer = fact.ask.format(_name(path)), article.facts[fact.name]
    if f" {normalise(answer)} " in f" {normalise(text)} " or answer in {a.title for a, _ in path}:
        return None
    return Asked(text, answer, _cited(path), "bridge")


def _pairs(paths: Sequence[Chain], rng: np.random.Generator) -> Iterator[tuple[Chain, Chain]]:
    """Two paths that end in the years of two articles of a kind, in random order."""
    dated = [path for path in paths if path[-1][1].name == "year" and path[-1][0].kind in FIRST_OF]
    for place in rng.permutation(len(dated) ** 2):
        one, other = (dated[i] for i in divmod(int(place), len(dated)))
        if one[-1][0].kind == other[-1][0].kind:
            yield one, other


def _first(one: Chain, other: Chain) -> Asked | None:
    """Which of two came first; None if the years are equal or the paths share an article."""
    cited = _cited(one + other)
    a, b = one[-1][0], other[-1][0]
    if a.facts["year"] == b.facts["year"] or len({title for title, _ in cited}) < len(cited):
        return None
    answer = min(a, b, key=lambda article: article.facts["year"]).title
    return Asked(FIRST_OF[a.kind].format(_name(one), _name(other)), answer, cited, "comparison")


def _sames(community: Sequence[Article], rng: np.random.Generator) -> Iterator[Asked]:
    """Whether two articles have the same fact: yes and no in turns, as long as there are both."""
    by_answer: dict[str, list[Asked]] = {"yes": [], "no": []}
    for (kind, name), ask in SAME.items():
        fact = next(f for f in FACTS if (f.kind, f.name) == (kind, name))
        for a, b in itertools.permutations(
            [x for x in community if x.kind == kind and name in x.stated], 2
        ):
            answer = "yes" if a.facts[name] == b.facts[name] else "no"
            by_answer[answer].append(
                Asked(
                    ask.format(a.named, b.named),
                    answer,
                    _cited(((a, fact), (b, fact))),
                    "comparison",
                )
            )
    turns = zip(*(_shuffled(asked, rng) for asked in by_answer.values()), strict=False)
    return itertools.chain.from_iterable(turns)


def _record(asked: Asked, community: Sequence[Article], rng: np.random.Generator) -> dict[str, Any]:
    """A question in official format without its id; its context also has articles that mislead."""
    needed = dict.fromkeys(title for title, _ in asked.facts)
    others = [a.title for a in community if a.title not in needed]
    titles = [*needed, *(others[i] for i in rng.permutation(len(others))[:DISTRACTORS])]
    text = {a.title: a.sentences for a in community}
    return {
        "question": asked.text,
        "answer": asked.answer,
        "type": asked.kind,
        "level": "medium" if len(needed) <= 2 else "hard",
        "supporting_facts": [list(fact) for fact in asked.facts],
        "context": [[titles[i], text[titles[i]]] for i in rng.permutation(len(titles))],
    }
