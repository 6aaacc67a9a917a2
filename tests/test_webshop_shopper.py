"""The scripted shopper: it reads the request, errs, and draws from its keys alone."""

import numpy as np
import pytest

from qvlib.core.episodes import episode
from qvlib.core.lockstep import lockstep
from qvlib.environments import webshop
from qvlib.environments.webshop.generator import write_catalogue
from qvlib.environments.webshop.shopper import Habits, Shopper, wanted_options

CAREFUL = Habits(
    loose_query=0,
    attribute_query=0,
    compare=1,
    hasty=0,
    wrong_option=0,
    inspect=0,
    leave=0,
    wander=0,
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    write_catalogue(folder, 300, 0)
    return webshop.build(folder)


USUAL = Habits()


def play(shop, habits=USUAL, tasks=60):
    shopper = Shopper(shop, habits)
    return list(
        lockstep((episode(shop, task, 0) for task in shop.tasks("train")[:tasks]), shopper, 16)
    )


def test_it_is_the_same_again_and_errs(shop):
    records = play(shop)
    assert records == play(shop)
    rewards = np.array([r["reward"] for r in records])
    assert 0.3 < rewards.mean() < 0.7 and len(set(rewards)) > 4
    assert np.mean([r["reward"] for r in play(shop, CAREFUL)]) > rewards.mean() + 0.05


def test_a_careful_shopper_takes_the_options_it_can(shop):
    for record, task in zip(
        sorted(play(shop, CAREFUL), key=lambda r: r["task"]),
        sorted(shop.tasks("train")[:60], key=lambda t: t.id),
        strict=True,
    ):
        state = shop.reset(task)
        for action in record["actions"][:-1]:
            state = shop.step(state, action)
        offered = dict(shop.catalogue.by_asin[state.world.asin].options)
        can = {
            (name, value)
            for name, value in wanted_options(state, offered)
            if value in offered.get(name, ())
        }
        assert record["actions"][-1] == "click[buy now]" and can <= set(state.world.options)


def test_it_takes_the_options_that_a_person_asks_for(official, write):
    official["items_human_ins.json"] = {
        "B000000001": [
            {
                "instruction": "a large cotton shirt in light blue",
                "instruction_attributes": ["cotton"],
                "instruction_options": ["Large/Tall", "light blue", "long sleeves"],
            }
        ]
    }
    shop = webshop.build(write(official), goals="human", dev_share=0.01, test_share=0.01)
    task = next(task for tasks in shop.splits.values() for task in tasks)
    (record,) = lockstep([episode(shop, task, 0)], Shopper(shop, CAREFUL), 1)
    assert record["actions"][-3:-1] in (
        ["click[large | tall]", "click[light blue]"],
        ["click[light blue]", "click[large | tall]"],
    )
    assert record["actions"][-1] == "click[buy now]"
    offered = {"size": ("small", "large | tall"), "color": ("red", "light blue")}
    wanted = wanted_options(shop.reset(task), offered)
    assert wanted == [("size", "large | tall"), ("color", "light blue"), ("", "long sleeves")]


def test_how_often_it_errs_can_be_scaled(shop):
    assert Habits().scaled(1.0) == Habits()
    none, twice = Habits().scaled(0.0), Habits().scaled(2.0)
    assert (none.compare, none.hasty, none.wander) == (1.0, 0.0, 0.0) and (
        twice.compare,
        twice.hasty,
    ) == pytest.approx((0.3, 0.35))
    assert none.inspect == Habits().inspect  # no error
    rewards = [
        np.mean([r["reward"] for r in play(shop, habits)]) for habits in (none, Habits(), twice)
    ]
    assert rewards == sorted(rewards, reverse=True) and len(set(rewards)) == 3
