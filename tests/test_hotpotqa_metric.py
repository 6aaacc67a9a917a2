"""The answer metric, case by case."""

import pytest

from qvlib.environments.hotpotqa.metric import Score, normalise, score


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Bay of Fundy.", "bay of fundy"),
        ("A-ha", "aha"),
        ("them", "them"),
        ("  an  Apple a day ", "apple day"),
        ("the_end", "theend"),
        ("“quoted”", "“quoted”"),
        ("1969–1974", "1969–1974"),
        ("A. A. Milne", "milne"),
        ("The the", ""),
        ("\xa0", ""),
    ],
)
def test_normalise(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("YES.", "yes", Score(True, 1.0, 1.0, 1.0)),
        (
            "yes, they are",
            "yes",
            Score(False, 0.0, 0.0, 0.0),
        ),  # closed answers have no partial credit
        ("no", "No Doubt", Score(False, 0.0, 0.0, 0.0)),
        ("noanswer", "noanswer now", Score(False, 0.0, 0.0, 0.0)),
        ("third indeed", "third", Score(False, 2 / 3, 0.5, 1.0)),
        ("Squad Suicide", "Suicide Squad", Score(False, 1.0, 1.0, 1.0)),
        ("me me", "me you", Score(False, 0.5, 0.5, 0.5)),  # over multisets
        ("...", "the", Score(True, 0.0, 0.0, 0.0)),  # nothing is left of either
        ("", "Paris", Score(False, 0.0, 0.0, 0.0)),
    ],
)
def test_score(prediction, gold, expected):
    assert score(prediction, gold) == expected
