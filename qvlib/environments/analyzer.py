"""Lucene's English analysis: words by UAX #29, possessives and stop words off, Porter stems.

The classes of characters are those of Unicode 12.1, which Lucene 9 keeps (``word_break.json``:
property -> ranges of code points, from the Unicode Character Database). Later versions made a
letter of the cedilla, and took the colon from what may stand within a word.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import Stemmer

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with".split()
)
_LONGEST = 255
_PROPERTIES = Path(__file__).with_name("word_break.json")
_SYLLABLE = re.compile(r"(?:[aeiou]|(?<=[^aeiou])y)[^aeiou]")  # Porter's measure > 0

# Patterns below run over a text in which a letter, the key, stands for each character.
_IN_WORDS = {
    "A": ("ALetter",),
    "H": ("Hebrew_Letter",),
    "N": ("Numeric",),
    "K": ("Katakana",),
    "J": ("ExtendNumLet",),  # joins, such as _
    "q": ("Single_Quote",),
    "d": ("Double_Quote",),
    "l": ("MidLetter",),
    "m": ("MidNumLet",),
    "n": ("MidNum",),
    "x": ("Extend", "Format", "ZWJ"),  # belongs to what it follows
}
_IN_EMOJI = {
    "P": ("Pictograph",),  # emoji and what is kept for them
    "R": ("Regional_Indicator",),
    "x": ("Extend", "Format"),
    "z": ("ZWJ",),
}
_IN_OTHERS = {
    "S": ("Complex_Context",),  # scripts without spaces: Thai, Lao, Khmer, Burmese
    "I": ("Ideograph",),  # Han and Hiragana
    "x": ("Extend", "Format", "ZWJ"),
}
_SINGLE = {"#": "#", "*": "#", "\ufe0e": "t", "\ufe0f": "f", "\u20e3": "k", "\U000e007f": "e"}
_SINGLE |= {chr(code): "s" for code in range(0xE0020, 0xE007F)}  # of tags, that flags are made of
_SINGLE |= {chr(code): "M" for code in range(0x1F3FB, 0x1F400)}  # skin tones


def _word() -> re.Pattern[str]:
    """Letters, digits and Katakana, with what may join them."""
    hebrew = "Hx*(?:qx*|dx*Hx*)"
    letter = "[AH]x*"
    letters = f"{letter}(?:(?:Jx*)*(?!{hebrew}){letter}|[lmq]x*{letter})*"
    digits = "Nx*(?:(?:(?:Jx*)*|[nmq]x*)Nx*)*"
    part = f"(?:Kx*(?:(?:Jx*)*Kx*)*|(?:{hebrew}|{digits}|{letters})+)"
    return re.compile(f"(?:Jx*)*{part}(?:(?:Jx*)+{part})*(?:Jx*)*")


def _emoji() -> re.Pattern[str]:
    """A pictograph or a lone skin tone, joined or tagged; a keycap; a flag."""
    more = "[xzksMe]*"
    one = f"(?:P{more}f?|M{more})"
    sequence = f"(?:z*P{more}f?|M{more})(?:s+e|(?:(?:(?<=z)|z+){one})*)"
    return re.compile(f"{sequence}|#{more}f?k{more}|R[xzksMetf]*R[xzksMetf]*")


class _Classes(dict[int, str]):
    """Code point -> letter of its class, looked up when it is first met, for ``str.translate``."""

    def __init__(self, classes: dict[str, tuple[str, ...]], single: dict[str, str]) -> None:
        super().__init__({ord(char): letter for char, letter in single.items()})
        ranges = json.loads(_PROPERTIES.read_text())
        self.spans = {
            letter: sorted(
                (int(low, 16), int(high or low, 16))
                for name in names
                for low, _, high in (span.partition("-") for span in ranges[name].split())
            )
            for letter, names in classes.items()
        }

    def __missing__(self, code: int) -> str:
        self[code] = next((letter for letter in self.spans if self._is(letter, code)), ".")
        return self[code]

    def _is(self, letter: str, code: int) -> bool:
        spans = self.spans[letter]
        low, high = spans[bisect_right(spans, (code, sys.maxunicode)) - 1]
        return low <= code <= high


@functools.cache
def _rules() -> tuple[tuple[_Classes, re.Pattern[str]], ...]:
    """Which classes and which pattern find a token; the longest of them is taken."""
    return (
        (_Classes(_IN_WORDS, {}), _word()),
        (_Classes(_IN_EMOJI, _SINGLE), _emoji()),
        (_Classes(_IN_OTHERS, {}), re.compile("S[Sx]*|Ix*")),
    )


def tokens(text: str) -> list[str]:
    """Index or query terms of a text, in order, with repeats."""
    # A space always ends a word, so the pieces between spaces, which repeat, can be remembered.
    return [term for piece in text.split(" ") for term in _piece(piece)]


@functools.lru_cache(1 << 17)
def _piece(piece: str) -> tuple[str, ...]:
    return tuple(term for word in _words(piece) for term in _terms(word))


def _words(piece: str) -> Iterator[str]:
    rules = _rules()[:1] if piece.isascii() else _rules()
    spelt = [(pattern, piece.translate(classes)) for classes, pattern in rules]
    at = 0
    while at < len(piece):
        matches = (pattern.match(letters, at) for pattern, letters in spelt)
        end = max((match.end() for match in matches if match), default=at)
        if end > at:
            yield piece[at:end]
        at = max(end, at + 1)


def _terms(word: str) -> tuple[str, ...]:
    if len(word) > _LONGEST:
        return tuple(
            t for at in range(0, len(word), _LONGEST) for t in _terms(word[at : at + _LONGEST])
        )
    if word[-2:] in ("'s", "'S", "\u2019s", "\u2019S", "\uff07s", "\uff07S"):
        word = word[:-2]
    word = "".join(char.lower()[0] for char in word)  # each by itself, as Java does
    if word in STOP_WORDS:
        return ()
    return (_stem(word),)


def _stem(word: str) -> str:
    """Porter's stem as Lucene has it: short words stay; his later rules bli -> ble, logi -> log."""
    if len(word) <= 2:
        return word
    stem = _stemmer().stemWord(word)
    if stem.endswith("bli") and _SYLLABLE.search(stem[:-3]):
        return _stemmer().stemWord(stem[:-1] + "e")
    if stem.endswith("logi") and _SYLLABLE.search(stem[:-4]):
        return stem[:-1]
    return stem


@functools.lru_cache(1)
def _stemmer() -> Stemmer.Stemmer:
    return Stemmer.Stemmer("porter")
