"""The reward and its parts, by hand, with and without the original's bugs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvlib.base.errors import QvlibError
from qvlib.environments.webshop import catalogue, colours, goals
from qvlib.environments.webshop.fuzzy import matches
from qvlib.environments.webshop.reward import reward


def nouns(title):
    return tuple(title.lower().split())


@pytest.fixture
def shop(official, write):
    return catalogue.load(write(official))


def goal_for(shop, options, **changes):
    found = next(g for g in goals.build(shop, "synthetic") if g.asin == "B000000001")
    return replace(found, options=options, **changes)


def test_parts_by_hand(shop):
    shirt = shop.by_asin["B000000001"]
    goal = goal_for(
        shop, (("size", "small"),), attributes=("machine washable", "silk"), price_upper=20.0
    )
    parts = reward(goal, shirt, (("size", "small"),), 12.5, nouns)
    # 1 attribute of 2, the option (its pair's text "('size', 'small')" has the token small), the
    # price: 3 of 4 points.
    assert (parts.n_att, parts.n_opt, parts.r_price, parts.r_type) == (1, 1, True, 1.0)
    assert parts.reward == 3 / 4 and (parts.w_att, parts.w_option, parts.w_price) == (
        0.5,
        0.25,
        0.25,
    )
    assert reward(goal, shirt, (), 20.01, nouns).reward == 1 / 4


def test_repaired_colour(shop):
    shirt, goal = shop.by_asin["B000000001"], goal_for(shop, (("color", "black2626"),))
    chosen = (("color", "black2626"),)
    assert reward(goal, shirt, chosen, 12.5, nouns).n_opt == 0
    assert reward(goal, shirt, chosen, 12.5, nouns, repair=True).n_opt == 1
    assert reward(goal, shirt, (("pattern", "black2626"),), 12.5, nouns, repair=True).n_opt == 0


def test_repaired_title_and_attribute(shop):
    shirt = shop.by_asin["B000000001"]
    goal = goal_for(shop, (), name="Pullover", attributes=("COTTON SHIRT",))
    broken, mended = (reward(goal, shirt, (), 12.5, nouns, repair=r) for r in (False, True))
    assert (broken.r_type, broken.reward, mended.r_type) == (0.0, 0.0, 1.0)
    assert mended.reward == 1.0 and mended.r_option is None


@pytest.mark.parametrize(
    ("changes", "price"), [({"attributes": ()}, 12.5), ({"price_upper": 0}, 12.5), ({}, None)]
)
def test_undefined_rewards_are_refused(shop, changes, price):
    with pytest.raises(QvlibError, match="goal synthetic"):
        reward(goal_for(shop, (), **changes), shop.by_asin["B000000001"], (), price, nouns)


def test_colours():
    assert len(colours.COLOURS) == 102
    assert colours.by_substring("washable") == "ash" and colours.by_word("washable") == "washable"
    assert (
        colours.by_substring("light blue") == "blue" and colours.by_substring("dark red") == "dark"
    )


def test_matches():
    assert matches("red wool", "wool") and matches("Wool!", "wool") and not matches("", "")
    assert not matches("silk", "wool") and matches("machine washable", "machine-washables")


@settings(max_examples=200, deadline=None)
@given(st.text("abc é-", max_size=12), st.text("abc é-", max_size=12))
def test_shortcut_never_changes_the_answer(a, b):
    from difflib import SequenceMatcher

    from qvlib.environments.webshop.fuzzy import _close

    slow = bool(a and b) and round(100 * SequenceMatcher(None, a, b).ratio()) > 85
    assert _close(a, b) == slow
