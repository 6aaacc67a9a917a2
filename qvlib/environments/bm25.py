"""BM25 that ranks as Lucene does: byte-sized lengths, float32 scores, ties by name."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from qvlib.environments.analyzer import tokens

K1, B = np.float32(0.9), np.float32(0.4)
_FREE = 24  # lengths below are exact in Lucene's one-byte float


@dataclass(frozen=True)
class Index:
    """Postings of each term, one after another.

    docs, freqs: [postings]; starts: [terms + 1]; norms: [documents], 1 / (k1 (1 - b + b len / mean
        len));
    ranks: [documents], position of the document's name in sorted order.
    """

    terms: dict[str, int] = field(repr=False)
    starts: np.ndarray = field(repr=False)
    docs: np.ndarray = field(repr=False)
    freqs: np.ndarray = field(repr=False)
    idf: np.ndarray = field(repr=False)
    norms: np.ndarray = field(repr=False)
    ranks: np.ndarray = field(repr=False)

    def scores(self, query: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Documents that have a term of the query, and their scores as float32."""
        docs, parts = [], []
        for term, count in Counter(query).items():
            number = self.terms.get(term)
            if number is None:
                continue
            postings = slice(self.starts[number], self.starts[number + 1])
            weight = np.float32(count) * self.idf[number]
            docs.append(self.docs[postings])
            parts.append(
                weight - weight / (np.float32(1) + self.freqs[postings] * self.norms[docs[-1]])
            )
        if not docs:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        total = np.bincount(np.concatenate(docs), np.concatenate(parts), len(self.norms))
        hits = np.flatnonzero(total)
        return hits, total[hits].astype(np.float32)

    def search(self, query: Iterable[str], top: int) -> np.ndarray:
        """The best documents, best first; [<= top]."""
        hits, scores = self.scores(query)
        if len(hits) > top:
            kept = scores >= np.partition(scores, len(scores) - top)[len(scores) - top]
            hits, scores = hits[kept], scores[kept]
        return hits[np.lexsort((self.ranks[hits], -scores))[:top]]


def build_index(names: Sequence[str], texts: Iterable[str]) -> Index:
    """Index the texts; ``names`` break ties."""
    terms: defaultdict[str, int] = defaultdict()
    terms.default_factory = terms.__len__  # a new term gets the next number
    numbers, freqs, distinct, lengths = array("i"), array("f"), array("i"), array("i")
    for text in texts:
        words = tokens(text)
        counted = Counter(words)
        numbers.extend(map(terms.__getitem__, counted))
        freqs.extend(counted.values())
        distinct.append(len(counted))
        lengths.append(len(words))
    by_term = (
        np.argsort(np.frombuffer(numbers, np.int32), kind="stable")
        if numbers
        else np.empty(0, np.int64)
    )
    counts = np.bincount(np.array(numbers, np.int32), minlength=len(terms))
    total = len(lengths)
    mean = np.float32(sum(lengths) / max(total, 1))
    size = np.array([_one_byte(length) for length in lengths], np.float32)
    ranks = np.empty(total, np.int32)
    ranks[sorted(range(total), key=names.__getitem__)] = np.arange(total, dtype=np.int32)
    return Index(
        terms=dict(terms),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        docs=np.repeat(np.arange(total, dtype=np.int32), distinct)[by_term],
        freqs=np.array(freqs, np.float32)[by_term],
        idf=np.log(1 + (total - counts + 0.5) / (counts + 0.5)).astype(np.float32),
        norms=np.float32(1) / (K1 * ((np.float32(1) - B) + B * size / mean)),
        ranks=ranks,
    )


def _one_byte(length: int) -> int:
    """A length through Lucene's SmallFloat: four leading bits above 24."""
    if length < _FREE:
        return length
    rest = length - _FREE
    shift = max(rest.bit_length() - 4, 0)
    return _FREE + (rest >> shift << shift)
