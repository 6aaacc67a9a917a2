"""A cache with room holds what transformers' own does, and copies rows only where they move."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from qvlib.models.growing import Growing, in_place, with_room


def filled(rows: int, tokens: int, kind=DynamicLayer, **given) -> DynamicLayer:
    layer = kind(**given)
    layer.update(torch.randn(rows, 2, tokens, 3), torch.randn(rows, 2, tokens, 3))
    return layer


def cache(layer: DynamicLayer) -> SimpleNamespace:
    """What of a model's cache is used."""
    made = SimpleNamespace(layers=[layer])
    made.reorder_cache = lambda parents: [layer.reorder_cache(parents) for layer in made.layers]
    return made


@st.composite
def courses(draw):
    """(rows at first, parents after each token): rows part, end and change their places."""
    first = have = draw(st.integers(1, 4))
    steps = []
    for _ in range(draw(st.integers(1, 6))):
        parents = draw(st.lists(st.integers(0, have - 1), min_size=1, max_size=6))
        steps.append(parents)
        have = len(parents)
    return first, steps


@given(courses(), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_it_holds_what_a_plain_cache_does(course, start):
    first, steps = course
    torch.manual_seed(0)
    plain = filled(first, 3 + start)
    made = cache(plain)
    own = DynamicLayer()
    own.update(plain.keys, plain.values)
    with_room(made, torch.tensor(steps[0]), rows=6, room=len(steps))
    for i, parents in enumerate(steps):
        own.reorder_cache(torch.tensor(parents))
        if i:
            made.reorder_cache(torch.tensor(parents))
        key, value = torch.randn(2, len(parents), 2, 1, 3)
        shown = made.layers[0].update(key, value)
        for one, other in zip(shown, own.update(key, value), strict=True):
            assert torch.equal(one, other)
        assert made.layers[0].get_seq_length() == own.get_seq_length()
        assert made.layers[0].get_mask_sizes(1) == own.get_mask_sizes(1)


def test_a_further_token_copies_nothing_that_is_there():
    layer = Growing(filled(3, 5), torch.tensor([0, 1, 2, 2]), rows=4, room=2)
    before = layer.keys.data_ptr(), layer.values.data_ptr()
    layer.update(torch.randn(4, 2, 1, 3), torch.randn(4, 2, 1, 3))
    layer.reorder_cache(torch.tensor([0, 1]))
    layer.update(torch.randn(2, 2, 1, 3), torch.randn(2, 2, 1, 3))
    assert (layer.keys.data_ptr(), layer.values.data_ptr()) == before
    assert layer.keys.shape == (2, 2, 7, 3)


@pytest.mark.parametrize("rows, tokens", [(4, 3), (5, 1)])
def test_beyond_its_room_nothing_is_written(rows, tokens):
    layer = Growing(filled(2, 5), torch.tensor([0, 1]), rows=4, room=2)
    with pytest.raises((RuntimeError, IndexError)):
        layer.reorder_cache(torch.zeros(rows, dtype=torch.long))
        layer.update(torch.randn(rows, 2, tokens, 3), torch.randn(rows, 2, tokens, 3))


@pytest.mark.parametrize(
    "layer",
    [filled(2, 5, DynamicSlidingWindowLayer, sliding_window=4), filled(2, 5)],
    ids=["window", "whole"],
)
def test_a_cache_with_windows_is_reordered_as_it_is(layer):
    made, keys = cache(layer), layer.keys.clone()
    with_room(made, torch.tensor([1, 1, 0]), rows=3, room=1)
    assert torch.equal(made.layers[0].keys, keys[[1, 1, 0]])
    assert isinstance(made.layers[0], Growing) == (type(layer) is DynamicLayer)


def test_a_layer_that_uses_another_ones_keys_is_left_alone():
    made = cache(filled(2, 5))
    made.layers.append(DynamicLayer())  # never filled
    made.reorder_cache = lambda parents: made.layers[0].reorder_cache(parents)
    with_room(made, torch.tensor([1, 0]), rows=2, room=1)
    assert not any(isinstance(layer, Growing) for layer in made.layers)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=12))
def test_as_many_rows_as_can_stay_in_their_place(parents):
    order = in_place(parents)
    assert sorted(order) == list(range(len(parents)))
    arranged = [parents[child] for child in order]
    can = {p for p in parents if p < len(parents)}
    assert all(arranged[p] == p for p in can)
