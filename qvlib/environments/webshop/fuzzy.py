"""Does one text match another by more than 85 %, as thefuzz 0.19's token_set_ratio counts?

Only the answer is needed, never the number: rapidfuzz's ratio counts a longest common
subsequence, which is never shorter than difflib's matching blocks, so it rules most pairs out
and difflib judges the few that are left.
"""

from __future__ import annotations

import functools
import re
from difflib import SequenceMatcher

from rapidfuzz import fuzz

THRESHOLD = 85
_LATIN_1 = dict.fromkeys(range(128, 256))
_NOT_WORD = re.compile(r"\W")


@functools.lru_cache(1 << 16)
def matches(a: str, b: str) -> bool:
    """token_set_ratio(a, b) > 85."""
    first, second = _tokens(a), _tokens(b)
    if not first or not second:
        return False
    shared = first & second
    if shared and (shared == first or shared == second):
        return True
    common = " ".join(sorted(shared))
    x = f"{common} {' '.join(sorted(first - second))}".strip()
    y = f"{common} {' '.join(sorted(second - first))}".strip()
    return _close(common, x) or _close(common, y) or _close(x, y)


@functools.lru_cache(1 << 14)
def _tokens(text: str) -> frozenset[str]:
    return frozenset(_NOT_WORD.sub(" ", text.translate(_LATIN_1)).lower().split())


def _close(a: str, b: str) -> bool:
    if not a or not b or fuzz.ratio(a, b) < THRESHOLD:
        return False
    return round(100 * SequenceMatcher(None, a, b).ratio()) > THRESHOLD
