"""The articles that can be searched: titles, texts cut into pieces, titles similar to another."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qvlib.environments.analyzer import tokens
from qvlib.environments.bm25 import Index, build_index

SIMILAR = 5
# Letters that no accent can be taken off, and quotes and dashes, as who types writes them.
_TYPED = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
    | dict.fromkeys("\u2018\u2019\u201a\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u2033", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
)


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
        """At most five titles, best first by BM25 over the words of titles.

        Accents do not count, nor how quotes and dashes are drawn.
        """
        words = tokens(folded(entity))
        return tuple(self._titles[i] for i in self._index.search(words, SIMILAR))

    @functools.cached_property
    def _titles(self) -> tuple[str, ...]:
        return tuple(self.texts)

    @functools.cached_property
    def _index(self) -> Index:  # built at the first miss
        return build_index(self._titles, map(folded, self._titles))


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


def folded(text: str) -> str:
    """A text in lower case as it is typed on a plain keyboard: no accents, straight quotes."""
    apart = unicodedata.normalize("NFKD", text.lower().translate(_TYPED))
    return "".join(char for char in apart if not "\u0300" <= char <= "\u036f")


def _key(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
