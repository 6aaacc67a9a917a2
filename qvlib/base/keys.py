"""Keys of servers, which belong into no parameter, file or message: known by sight, struck out."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

_RUN = 5  # signs of a key in a row that are struck out
_BEGINNINGS = r"(sk|pk|xai|nvapi|glpat|pplx)-|(rk|gsk|hf|r8|gh[pousr])_|AIza|AKIA"


def looks_like_key(text: str) -> bool:
    """Whether a text is a key by its beginning, or by a long part of mixed signs."""
    if re.match(rf"({_BEGINNINGS})[\w-]{{8}}", text) and re.search(r"\d", text):
        return True
    long = (part for part in re.split("[-_]", text) if re.fullmatch("[A-Za-z0-9]{20,}", part))
    return any(all(re.search(kind, part) for kind in ("[a-z]", "[A-Z]", r"\d")) for part in long)


def keys_in(value: Any) -> Iterator[str]:
    """The names of a nested value's fields that hold what looks like a key."""
    fields = value.items() if isinstance(value, dict) else enumerate(value)
    for name, held in fields:
        if isinstance(held, (dict, list, tuple)):
            yield from (f"{name}.{inner}" for inner in keys_in(held))
        elif isinstance(held, str) and any(map(looks_like_key, held.split())):
            yield str(name)


def redacted(text: str, key: str) -> str:
    """A text without the key: plain, backwards, in base64 or hexadecimal, whole or in pieces.

    Of a text that holds most of the key in pieces too small to be struck out, nothing is left.
    """
    coded = key.encode()
    for known in (key, key[::-1], base64.b64encode(coded).decode(), coded.hex()):
        text = _struck(text, _signs(known))
    small, told = _runs(_signs(key), 3), "".join(sign for sign, _ in _placed(text))
    held = sum(run in told for run in small)
    return "***" if len(small) > 4 and held > len(small) / 3 else text


def _struck(text: str, key: str) -> str:
    """Each run of the key's signs, whatever stands between them, becomes ``***``."""
    placed = _placed(text)
    told = "".join(sign for sign, _ in placed)
    length = min(_RUN, len(key))
    runs, last, parts, kept = _runs(key, length), -2, [], 0
    for start in range(len(told) - length + 1) if length else ():
        if told[start : start + length] not in runs:
            continue
        if start > last + 1:  # no part of the run before it
            parts += [text[kept : placed[start][1]], "***"]
        last = start + length - 1
        kept = placed[last][1] + 1
    return "".join([*parts, text[kept:]])


def _placed(text: str) -> list[tuple[str, int]]:
    return [(c.lower(), i) for i, c in enumerate(text) if c.isascii() and c.isalnum()]


def _signs(text: str) -> str:
    return "".join(sign for sign, _ in _placed(text))


def _runs(text: str, length: int) -> set[str]:
    return {text[i : i + length] for i in range(len(text) - length + 1)}
