"""The official answer metric: exact match and F1 of normalised strings."""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = frozenset({"yes", "no", "noanswer"})


@dataclass(frozen=True, slots=True)
class Score:
    """exact: the normalised strings are equal; f1, precision, recall in [0, 1], over tokens."""

    exact: bool
    f1: float
    precision: float
    recall: float


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and the words a, an, the; single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score(prediction: str, gold: str) -> Score:
    """How good an answer is.

    As in the original, a closed answer (yes, no, noanswer) that differs has no partial credit, and
    two strings of which nothing is left match exactly with F1 0.
    """
    ours, theirs = normalise(prediction), normalise(gold)
    exact = ours == theirs
    if not exact and (ours in _CLOSED or theirs in _CLOSED):
        return Score(exact, 0.0, 0.0, 0.0)
    predicted, wanted = ours.split(), theirs.split()
    common = sum((Counter(predicted) & Counter(wanted)).values())
    if not common:
        return Score(exact, 0.0, 0.0, 0.0)
    precision, recall = common / len(predicted), common / len(wanted)
    return Score(exact, 2 * precision * recall / (precision + recall), precision, recall)
