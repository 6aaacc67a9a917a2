"""Cloning the small agent: what is swapped to teach copying, and that the curve is the same again."""

import numpy as np
import pytest

from qvlib.models import small
from qvlib.models.prompts import compact
from qvlib.seeding import generator
from qvlib.types import State, Task

THINGS = [f"{a} {b} {c}" for a in ("soft", "gluten free", "red", "tall") for b in ("wool", "pantry", "oak") for c in ("staples", "rugs")]


def start(thing):
    instruction = f"find me {thing} under 20 dollars"
    return State(Task("t", instruction, "p"), f"WebShop [SEP] Instruction: [SEP] {instruction} [SEP] Search", ())


SHOWN = [small.Demonstration(start(thing), f"search[{thing}]") for thing in THINGS]


@pytest.fixture(scope="module")
def tokenizer():
    return small.train_tokenizer(SHOWN, 400)


def swapped(tokenizer, share, number):
    row = small._encode(tokenizer, SHOWN[:1])[0]
    words = np.array(sorted(set(range(len(tokenizer))) - set(tokenizer.added_tokens_decoder)))
    return row, small._swapped(row, words, share, generator(0, "swaps", number))


def test_swaps_are_the_same_in_prompt_and_action(tokenizer):
    (ids, start), (new, new_start) = swapped(tokenizer, 1.0, 0)
    assert start == new_start and len(ids) == len(new) and ids != new
    others = dict(zip(ids, new))
    assert new == [others[token] for token in ids]  # one word for another, everywhere
    assert new[start] == ids[start] and new[-1] == tokenizer.eos_token_id  # the verb and the end stay
    changed = {token for token, other in others.items() if token != other}
    assert changed <= set(ids[start + 1:-1]) & set(ids[:start])
    assert set(ids[start + 1:-1]) & set(ids[:start]) - changed == set()
    assert not set(others.values()) & set(tokenizer.added_tokens_decoder) - set(ids)


def test_the_share_of_swaps(tokenizer):
    row = small._encode(tokenizer, SHOWN[:1])[0]
    assert swapped(tokenizer, 0.0, 0)[1] == row
    count = sum(swapped(tokenizer, 0.3, i)[1] != row for i in range(1000))
    assert 240 < count < 360


def test_cloning_learns_and_is_the_same_again(tokenizer):
    def curve(swaps):
        model = small.make_model(tokenizer, 16, 1, 2, seed=0)
        rows = list(small.clone(model, tokenizer, SHOWN, epochs=6, lr=1e-2, batch=4, seed=0, swaps=swaps))
        assert [r["step"] for r in rows] == list(range(36)) and {r["steps"] for r in rows} == {36}
        return [r["action_loss"] for r in rows]

    plain = curve(0.0)
    assert plain == curve(0.0) and np.mean(plain[-4:]) < 0.7 * np.mean(plain[:4])
    assert curve(0.5) == curve(0.5) != plain


def test_aliases_and_buttons_are_single_tokens(tokenizer):
    text = compact(start(THINGS[0])).text
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(" #3", add_special_tokens=False)["input_ids"]) == 1
