"""Lucene's English analysis: words by UAX #29, possessives and stop words off, Porter stems."""

from __future__ import annotations

import functools

import regex
import Stemmer

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with".split()
)
_LONGEST = 255

# Unicode's Word_Break classes. Pictographs and the middle classes are spelt out as of Unicode 12,
# which Lucene 9 keeps: later versions took stars and notes from the one and the colon from the
# others.
_MORE = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"
_LETTER = rf"[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_MORE}"
_DIGIT = rf"\p{{WB=Numeric}}{_MORE}"
_KATAKANA = rf"\p{{WB=Katakana}}{_MORE}"
_JOIN = rf"\p{{WB=ExtendNumLet}}{_MORE}"
_BOTH = ".'\u2018\u2019\u2024\ufe52\uff07\uff0e"
_MID_LETTER = rf"[:\u00b7\u0387\u055f\u05f4\u2027\ufe13\ufe55\uff1a{_BOTH}]{_MORE}"
_MID_DIGIT = (
    r"[,;\u037e\u0589\u060c\u060d\u066c\u07f8\u2044\ufe10\ufe14\ufe50\ufe54\uff0c\uff1b"
    rf"{_BOTH}]{_MORE}"
)
_LETTERS = rf"{_LETTER}(?:(?:{_MID_LETTER})?{_LETTER})*+"
_DIGITS = rf"{_DIGIT}(?:(?:{_MID_DIGIT})?{_DIGIT})*+"
_PART = rf"(?:(?:{_LETTERS}|{_DIGITS})++|(?:{_KATAKANA})++)"
_PICTOGRAPH = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3"
    "\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705"
    "\u2708-\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767"
    "\u2795-\u2797\u27a1\u27b0\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e\U0001f17f\U0001f18e"
    "\U0001f191-\U0001f19a\U0001f1ad-\U0001f1e5\U0001f201-\U0001f20f\U0001f21a\U0001f22f\U0001f232-\U0001f23a"
    "\U0001f23c-\U0001f23f\U0001f249-\U0001f3fa\U0001f400-\U0001f53d\U0001f546-\U0001f64f\U0001f680-\U0001f6ff"
    "\U0001f774-\U0001f77f\U0001f7d5-\U0001f7ff\U0001f80c-\U0001f80f\U0001f848-\U0001f84f\U0001f85a-\U0001f85f"
    "\U0001f888-\U0001f88f\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a\U0001f93c-\U0001f945\U0001f947-\U0001fffd]"
)
_EMOJI = rf"{_PICTOGRAPH}{_MORE}(?:(?<=\u200d){_PICTOGRAPH}{_MORE})*+|\p{{RI}}\p{{RI}}"
_WORD = regex.compile(
    rf"(?:{_JOIN})*+{_PART}(?:(?:{_JOIN})++{_PART})*+(?:{_JOIN})*+"
    rf"|[\p{{Script=Han}}\p{{Script=Hiragana}}]{_MORE}|\p{{LB=SA}}++|{_EMOJI}"
)
_SYLLABLE = regex.compile(r"(?:[aeiou]|(?<=[^aeiou])y)[^aeiou]")  # Porter's measure > 0


def tokens(text: str) -> list[str]:
    """Index or query terms of a text, in order, with repeats."""
    # A space always ends a word, so the pieces between spaces, which repeat, can be remembered.
    return [term for piece in text.split(" ") for term in _piece(piece)]


@functools.lru_cache(1 << 17)
def _piece(piece: str) -> tuple[str, ...]:
    return tuple(term for word in _WORD.findall(piece) for term in _terms(word))


def _terms(word: str) -> tuple[str, ...]:
    if len(word) > _LONGEST:
        return tuple(
            t for at in range(0, len(word), _LONGEST) for t in _terms(word[at : at + _LONGEST])
        )
    if word[-2:] in ("'s", "'S", "\u2019s", "\u2019S", "\uff07s", "\uff07S"):
        word = word[:-2]
    word = word.lower()
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
