"""Analysis and ranking."""

import math

import numpy as np

from qvlib.environments import bm25
from qvlib.environments.analyzer import tokens
from qvlib.environments.webshop import catalogue, search


def test_tokens():
    assert tokens("The women's T-shirts, 3.5mm & assembly of technology ☕") == [
        "women",
        "t",
        "shirt",
        "3.5mm",
        "assembl",
        "technolog",
        "☕",
    ]
    assert tokens("日本 us " + "a" * 300) == ["日", "本", "us", "a" * 255, "a" * 45]
    assert tokens("the of") == []


def test_lengths_in_one_byte():
    assert [bm25._one_byte(n) for n in (0, 23, 39, 40, 41, 100)] == [0, 23, 39, 40, 40, 96]


def test_bm25_by_hand():
    index = bm25.build_index(["b", "a", "c"], ["red shirt", "red shirt", "green tea leaf pot"])
    docs, scores = index.scores(["red", "red"])
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = 2 * idf * 1 / (1 + 0.9 * (0.6 + 0.4 * 2 / (8 / 3)))
    assert docs.tolist() == [0, 1] and np.allclose(scores, expected, rtol=1e-6)
    assert index.search(["red"], top=9).tolist() == [1, 0]  # a tie: by name
    assert index.search(["red"], top=1).tolist() == [1]
    assert index.search(["absent"], top=9).tolist() == [] and index.search([], top=9).tolist() == []


def test_special_queries(official, write):
    find = search.engine(catalogue.load(write(official)))
    assert find(("<c>", "garden")) == ("B000000004", "B000000005")
    assert find(("<q>", "tea")) == ("B000000003",)
    assert len(find(("<r>",))) == 6 and find(("<r>",)) == find(("<r>",))
    assert find(("<a>", "wool")) is None and find(("<c>",)) is None
    assert find(("green", "tea"))[0] == "B000000003" and find(("",)) == ()
