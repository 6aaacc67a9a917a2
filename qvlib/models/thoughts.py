"""Where in a reply the action stands, after its thought."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from qvlib.models.replies import said


def action_tokens(
    decode: Callable[[Sequence[int]], str],
    ids: Sequence[int],
    action: str,
    quotes: bool = False,
) -> slice:
    """Which tokens of a reply write its action; with the one that ends it, where that follows.

    decode: ids -> text. quotes: with what the reply quotes in brackets behind the action. So the
    sum of their log-probabilities is that of the action given its thought, however long that is.
    Where the reply does not say the action, all of it.
    """
    text = decode(ids)
    at, stop = said(text)
    told = text[at:stop]
    named = re.search(rf"action\W*\d*\W*[:：]\W*?({re.escape(action)})", told, re.IGNORECASE)
    start = named.start(1) if named else told.rfind(action)
    if start < 0:
        return slice(0, len(ids))
    start += at
    end = start + len(action)
    quoted = re.compile(r"[ \t]+\([^\n]*").match(text, end, stop) if quotes else None
    end = quoted.end() if quoted else end
    first = _tokens(decode, ids, start + 1) - 1
    last = len(ids) if not text[end:].strip() else _tokens(decode, ids, end)
    return slice(max(0, first), last)


def _tokens(decode: Callable[[Sequence[int]], str], ids: Sequence[int], characters: int) -> int:
    """The fewest tokens whose text has so many characters."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(decode(ids[:middle])) >= characters:
            high = middle
        else:
            low = middle + 1
    return low
