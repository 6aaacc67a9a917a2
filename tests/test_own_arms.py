"""An arm of one's own stands among its kind and is drawn as one of them."""

import pytest

from qvlib.agents.arm import CONTROL, NO_Q, OTHER, RERANKED, arm
from qvlib.agents.arms import arms_of
from qvlib.base.errors import QvlibError

MINE = arm("mine", RERANKED, "what I make of Q", lambda cast: None)
PLAIN = arm("plain", NO_Q, "what I make without", lambda cast: None)
SECOND = arm("second", NO_Q, "of the second agent", lambda cast: None, needs=("other_agent",))
LUCKY = arm("lucky", CONTROL, "by coins", lambda cast: None)
ODD = arm("odd", OTHER, "something else", lambda cast: None)
STRANGE = arm("strange", "of no kind", "whatever", lambda cast: None)

CLIMBING = arm("../../climbing", OTHER, "out of its folder", lambda cast: None)
SLASHED = arm("mine/0", OTHER, "as a variant is called", lambda cast: None)
NAMELESS = arm("", OTHER, "without a name", lambda cast: None)
LINES = arm("a\nb", OTHER, "two lines", lambda cast: None)
LONG = arm("x" * 300, OTHER, "longer than a file's name", lambda cast: None)
NUMBER = arm(7, OTHER, "a number", lambda cast: None)
CAPITAL = arm("Greedy", OTHER, "greedy where disks know no capitals", lambda cast: None)


def before(name, *own):
    """The arm that stands before an arm in the list with some of one's own."""
    names = [each.name for each in arms_of(tuple(f"test_own_arms:{each}" for each in own))]
    return names[names.index(name) - 1]


@pytest.mark.parametrize(
    "own, name, last",
    [
        ("MINE", "mine", "saycan_n5"),
        ("PLAIN", "plain", "eto"),
        ("SECOND", "second", "other_agent_sample"),
        ("LUCKY", "lucky", "control_q_n10"),
        ("ODD", "odd", "tuned_policy"),
    ],
)
def test_it_stands_behind_the_last_of_its_kind_and_agent(own, name, last):
    assert before(name, own) == last


def test_several_stand_as_they_were_typed():
    assert before("mine", "PLAIN", "MINE") == "saycan_n5"
    assert before("plain", "PLAIN", "MINE") == "eto"


def test_a_kind_that_pictures_do_not_know_is_refused():
    with pytest.raises(QvlibError, match="extra_arms: arm 'strange' is of kind 'of no kind'; give"):
        arms_of(("test_own_arms:STRANGE",))


@pytest.mark.parametrize("own", ["CLIMBING", "SLASHED", "NAMELESS", "LINES", "LONG", "NUMBER"])
def test_a_name_that_is_none_of_a_folder_is_refused(own):
    with pytest.raises(QvlibError, match=f"extra_arms: 'test_own_arms:{own}' is called .* give"):
        arms_of((f"test_own_arms:{own}",))


def test_a_name_that_differs_in_capitals_alone_is_refused():
    with pytest.raises(QvlibError, match="two arms are called 'greedy'; rename one"):
        arms_of(("test_own_arms:CAPITAL",))
