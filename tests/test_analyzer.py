"""Words by UAX #29 with Lucene's emoji: beside a restatement of the rules, and case by case."""

import json
import random
import re
import unicodedata

import pytest

from qvlib.environments import analyzer

PROPERTIES = json.loads(analyzer._PROPERTIES.read_text())


def members(name):
    """The code points of a property."""
    spans = (span.partition("-") for span in PROPERTIES[name].split())
    return [c for low, _, high in spans for c in range(int(low, 16), int(high or low, 16) + 1)]


WORD_BREAK = {
    chr(code): name
    for name in (
        "ALetter Hebrew_Letter Numeric Katakana ExtendNumLet Single_Quote Double_Quote MidLetter "
        "MidNumLet MidNum Extend Format ZWJ"
    ).split()
    for code in members(name)
}
LETTER, QUOTE = {"ALetter", "Hebrew_Letter"}, {"MidNumLet", "Single_Quote"}
SKIPPED = {"Extend", "Format", "ZWJ"}
JOINED = LETTER | {"Numeric", "Katakana", "ExtendNumLet"}


def no_break(classes, at):
    """Whether rules WB5 to WB13b join two characters; ``classes`` are those that WB4 leaves."""

    def of(place):
        return classes[place] if 0 <= place < len(classes) else ""

    two, one, here, then = of(at - 2), of(at - 1), of(at), of(at + 1)
    mid = {"MidLetter"} | QUOTE
    return (
        (one in LETTER and here in LETTER)  # WB5
        or (one in LETTER and here in mid and then in LETTER)  # WB6
        or (two in LETTER and one in mid and here in LETTER)  # WB7
        or (one == "Hebrew_Letter" and here == "Single_Quote")  # WB7a
        or (one == "Hebrew_Letter" and here == "Double_Quote" and then == "Hebrew_Letter")  # WB7b
        or (two == "Hebrew_Letter" and one == "Double_Quote" and here == "Hebrew_Letter")  # WB7c
        or (one in LETTER | {"Numeric"} and here in LETTER | {"Numeric"})  # WB8 to WB10
        or (two == here == "Numeric" and one in {"MidNum"} | QUOTE)  # WB11
        or (one == then == "Numeric" and here in {"MidNum"} | QUOTE)  # WB12
        or (one == here == "Katakana")  # WB13
        or (one in JOINED and here == "ExtendNumLet")  # WB13a
        or (one == "ExtendNumLet" and here in JOINED)  # WB13b
    )


def words(text):
    """The segments of UAX #29 that hold a letter, digit or Katakana; no emoji, no Thai, no Han."""
    atoms = []
    for char in text:
        if WORD_BREAK.get(char) in SKIPPED and atoms:  # WB4
            atoms[-1] += char
        else:
            atoms.append(char)
    classes = [WORD_BREAK.get(atom[0], "Other") for atom in atoms]
    segments = [[0]] if atoms else []
    for at in range(1, len(atoms)):
        if no_break(classes, at):
            segments[-1].append(at)
        else:
            segments.append([at])
    told = LETTER | {"Numeric", "Katakana"}
    return ["".join(atoms[i] for i in s) for s in segments if told & {classes[i] for i in s}]


SOME = {
    "ALetter": "aZéжꞀᄀ한\u02d7",
    "Hebrew_Letter": "אבש",
    "Numeric": "19٣",
    "Katakana": "カー",
    "ExtendNumLet": "_\u203f",
    "Single_Quote": "'",
    "Double_Quote": '"',
    "MidLetter": ":·",
    "MidNumLet": ".’",
    "MidNum": ",;",
    "Extend": "\u0301\u200c",
    "Format": "\u00ad",
    "ZWJ": "\u200d",
    "Other": "-¸$(",
}
# In Lucene's grammar a Hebrew word that held a double quote or ended in a single one begins anew.
BEGINS_ANEW = re.compile("[אבש][\u0301\u200c\u00ad\u200d]*[\"']")


def test_words_of_any_characters_are_those_of_the_rules():
    assert all(WORD_BREAK.get(c, "Other") == name for name, some in SOME.items() for c in some)
    signs = [c for some in SOME.values() for c in some]
    compared = 0
    for seed in range(6000):
        rng = random.Random(seed)
        text = "".join(rng.choice(signs) for _ in range(rng.randint(1, 9)))
        if not BEGINS_ANEW.search(text):
            compared += 1
            assert list(analyzer._words(text)) == words(text), ascii(text)
    assert compared > 4000


def test_every_character_alone_and_between_letters():
    """Over all of Unicode but what has rules of its own: emoji, flags, Thai and its like, Han."""
    own = {*members("Pictograph"), *members("Complex_Context"), *members("Ideograph")}
    own |= {*members("Regional_Indicator"), *range(0x1F3FB, 0x1F400)}
    for code in sorted(set(range(0x30000)) - own - {32}):
        char = chr(code)
        if code > 0x500 and code % 17 and WORD_BREAK.get(char) in (None, "ALetter"):
            continue  # some of the many alike
        for text in (char, f"a{char}b", f"1{char}2"):
            assert list(analyzer._words(text)) == words(text), ascii(text)


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG, TAGGED = "\U0001f1e9\U0001f1ea", "\U0001f3f4\U000e0067\U000e0062\U000e007f"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a¸b ¸", ["a", "b"]),  # U+00B8 became a letter after Unicode 12
        ("\U0001f3fd", ["\U0001f3fd"]),  # a skin tone alone is an emoji
        ("a\U0001f3fd", ["a\U0001f3fd"]),  # after a letter it extends it
        ("\U0001f44d\U0001f3fd ok", ["\U0001f44d\U0001f3fd", "ok"]),
        (FAMILY, [FAMILY]),
        ("❤\ufe0f\u200d\U0001f525x", ["❤\ufe0f\u200d\U0001f525", "x"]),
        ("☕\ufe0e", ["☕"]),  # the text selector belongs to no emoji
        ("\u200d☕", ["\u200d☕"]),
        ("☕☕", ["☕", "☕"]),
        (f"{FLAG}{FLAG}{FLAG[0]}", [FLAG, FLAG]),
        (TAGGED, [TAGGED]),
        ("#\ufe0f\u20e3 *\u20e3 1\ufe0f\u20e3 #", ["#\ufe0f\u20e3", "*\u20e3", "1\ufe0f\u20e3"]),
        ("ℹab ℹ\u200d☕", ["ℹab", "ℹ\u200d☕"]),  # a letter and a pictograph: the longer
        ("®™", ["®", "™"]),
        ("ภาษาไทย\u0e31x", ["ภาษาไทย\u0e31", "x"]),
        ("日本\u0301ひ カタ", ["日", "本\u0301", "ひ", "カタ"]),
        ("א' ב\"ג צה\"ל א'1", ["א'", 'ב"ג', 'צה"ל', "א'1"]),
        ("don't 3.5mm a.5 1,000 a:b", ["don't", "3.5mm", "a", "5", "1,000", "a:b"]),
        ("__ _a_ a__b", ["_a_", "a__b"]),
        ("カa カ_a", ["カ", "a", "カ_a"]),
    ],
    ids=range(20),
)
def test_words(text, found):
    assert [word for piece in text.split(" ") for word in analyzer._words(piece)] == found


def test_letters_are_lowered_one_by_one():
    assert analyzer.tokens("İI ΟΔΟΣ") == ["ii", "οδοσ"]
    assert unicodedata.normalize("NFC", "İ".lower()) != "i"  # what Python makes of the whole


def test_classes_are_disjoint_and_within_unicode():
    for group in (analyzer._IN_WORDS, analyzer._IN_EMOJI):
        codes = [code for names in group.values() for name in names for code in members(name)]
        assert len(codes) == len(set(codes)) and max(codes) <= 0x10FFFF
