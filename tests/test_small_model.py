"""Cloning the small agent: it learns, and the same again."""

import numpy as np
import pytest

from qvlib.core.types import State, Task
from qvlib.models import small
from qvlib.models.prompts import compact

THINGS = [
    f"{a} {b} {c}"
    for a in ("soft", "gluten free", "red", "tall")
    for b in ("wool", "pantry", "oak")
    for c in ("staples", "rugs")
]


def start(thing):
    instruction = f"find me {thing} under 20 dollars"
    return State(
        Task("t", instruction, "p"),
        f"WebShop [SEP] Instruction: [SEP] {instruction} [SEP] Search",
        (),
    )


SHOWN = [small.Demonstration(start(thing), f"search[{thing}]") for thing in THINGS]


@pytest.fixture(scope="module")
def tokenizer():
    return small.train_tokenizer(SHOWN, 400)


def test_cloning_learns_and_is_the_same_again(tokenizer):
    def curve():
        model = small.make_model(tokenizer, 16, 1, 2, seed=0)
        rows = list(small.clone(model, tokenizer, SHOWN, epochs=6, lr=1e-2, batch=4, seed=0))
        assert [r["step"] for r in rows] == list(range(36)) and {r["steps"] for r in rows} == {36}
        return [r["action_loss"] for r in rows]

    losses = curve()
    assert losses == curve() and np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_aliases_and_buttons_are_single_tokens(tokenizer):
    text = compact(start(THINGS[0])).text
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(" #3", add_special_tokens=False)["input_ids"]) == 1
