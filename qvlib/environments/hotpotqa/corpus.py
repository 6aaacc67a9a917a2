"""The articles that can be searched: titles, texts cut into pieces, titles similar to another."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qvlib.environments.webshop.analyzer import tokens
from qvlib.environments.webshop.search import Index, build_index

SIMILAR = 5


@dataclass(frozen=True)
class Corpus:
    """Articles held in memory.

    texts: title -> text. keys: title as it is compared -> title. lower: the same in lower case; of
    titles that differ in case only, the smallest by code point.
    """

    texts: Mapping[str, str] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)
    lower: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "similar", functools.lru_cache(4096)(self.similar))

    def __len__(self) -> int:
        return len(self.texts)

    def find(self, entity: str) -> str | None:
        """The title equal to the entity up to Unicode form, white space and, failing that, case."""
        key = _key(entity)
        return self.keys.get(key) or self.lower.get(key.lower())

    def text(self, title: str) -> str:
        """The text of an article, by its exact title."""
        return self.texts[title]

    def similar(self, entity: str) -> tuple[str, ...]:
        """At most five titles, best first by BM25 over the words of titles."""
        return tuple(self._titles[i] for i in self._index.search(tokens(entity), SIMILAR))

    @functools.cached_property
    def _titles(self) -> tuple[str, ...]:
        return tuple(self.texts)

    @functools.cached_property
    def _index(self) -> Index:  # built at the first miss
        return build_index(self._titles, self._titles)


def build_corpus(articles: Iterable[tuple[str, str]]) -> Corpus:
    """A corpus of (title, text) pairs; of a title that comes twice, the first stays."""
    texts: dict[str, str] = {}
    for title, text in articles:
        texts.setdefault(title, text)
    keys: dict[str, str] = {}
    lower: dict[str, str] = {}
    for title in sorted(texts):
        key = _key(title)
        keys.setdefault(key, title)
        lower.setdefault(key.lower(), title)
    return Corpus(texts, keys, lower)


@functools.lru_cache(4096)
def pieces(text: str) -> tuple[str, ...]:
    """A text cut as the original cuts it, at line ends and ``". "``.

    Each piece ends in a full stop of its own. The last sentence keeps its own as well, and so ends
    in two.
    """
    cut = (piece.strip() for line in text.split("\n") for piece in line.split(". "))
    return tuple(piece + "." for piece in cut if piece)


def _key(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
