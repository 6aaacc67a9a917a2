"""Prompts that start with known prompts pay for what is new, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import small_lm
from transformers import MistralConfig, MistralForCausalLM

from qvlib.base.seeding import generator
from qvlib.models.local import LocalModel
from qvlib.models.prefixes import Prefixes

VOCABULARY = 420


@pytest.fixture(scope="module")
def base() -> LocalModel:
    return small_lm()


def fresh(lm: LocalModel, cache_tokens: int) -> LocalModel:
    made = LocalModel(
        lm.model, lm.tokenizer, max_action_tokens=6, cache_tokens=cache_tokens, batch_tokens=400
    )
    made._joins = True  # as a large model does
    return made


def conversations(count: int = 3, steps: int = 4, header: int = 90):
    """Prompts by step: each starts with the prompt before it, all with one header."""
    rng = generator(0, "conversations")

    def some(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(10, VOCABULARY - 20, n).tolist())

    head = some(header)
    rows = [head + some(5 + 3 * i) for i in range(count)]
    made = [rows]
    for step in range(steps):
        rows = [row + some(4 + 5 * ((i + step) % 3)) for i, row in enumerate(rows)]
        made.append(rows)
    return made


def played(lm: LocalModel, steps):
    """Samples and scores of every step: (ids, log-probabilities, scores)."""
    return [played_one(lm, steps, step) for step in range(len(steps))]


def same(one, other, atol):
    for a, b in zip(one, other, strict=True):
        assert a[0] == b[0]
        np.testing.assert_allclose(a[1], b[1], atol=atol)
        np.testing.assert_allclose(a[2], b[2], atol=atol)


def test_a_growing_prompt_pays_for_its_new_end_alone(base):
    steps = conversations()
    plain, cached = fresh(base, 0), fresh(base, 10_000)
    same(played(plain, steps), played(cached, steps), atol=1e-4)
    new = sum(map(len, steps[-1])) - 2 * 90  # the header once, then every token once
    # The rest is replies, and the last token of prompts that are scored after they were sampled
    # from.
    assert cached.usage["computed_tokens"] - new < 0.2 * plain.usage["computed_tokens"]
    assert (
        cached.usage["prompt_tokens"] == plain.usage["prompt_tokens"] + 90
    )  # the header was asked for by itself
    assert cached.usage["computed_tokens"] < plain.usage["computed_tokens"] / 3


def test_prompts_of_one_call_serve_each_other(base):
    """The states of a tree come at once: the longer ones start with the shorter ones."""
    prompts = [prompt for step in conversations() for prompt in step]
    replies = [[(10, 11, base.end)] for _ in prompts]
    plain, cached = fresh(base, 0), fresh(base, 10_000)
    np.testing.assert_allclose(
        plain.log_probs(prompts, replies), cached.log_probs(prompts, replies), atol=1e-4
    )
    assert cached.usage["computed_prompt_tokens"] < plain.usage["computed_prompt_tokens"] / 3


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([150, 400, 900]), st.permutations(range(5)))
def test_order_and_room_change_nothing(base, most, order):
    steps = conversations()
    expected = played(fresh(base, 0), steps)
    lm = fresh(base, most)
    made = {}
    for step in order:
        made[step] = played_one(lm, steps, step)
        assert lm._prefixes.held <= most
    same(expected, [made[i] for i in range(5)], atol=1e-4)


def played_one(lm: LocalModel, steps, step: int):
    """(ids, log-probabilities, scores) of a step."""
    prompts = steps[step]
    draws = [[generator(step, i, k).random for k in range(3)] for i in range(len(prompts))]
    samples = lm.sample(prompts, draws, 1.0, 0.9)
    replies = [[(10 + i + step, 11, lm.end), (12, lm.end)] for i in range(len(prompts))]
    return (
        [[ids for ids, _ in row] for row in samples],
        [[p for _, p in row] for row in samples],
        lm.log_probs(prompts, replies),
    )


def layers(start: int, end: int):
    return [(torch.arange(start, end).float().view(1, -1, 1), torch.zeros(1, end - start, 1))]


def test_a_prompt_is_kept_as_what_it_adds():
    known = Prefixes(most=10)
    known.put((1, 2, 3), 0, layers(0, 3))
    known.put((1, 2, 3, 4, 5), 3, layers(3, 5))
    known.put((1, 2, 3, 6), 3, layers(3, 4))
    assert (
        known.held == 6 and known.known((1, 2, 3, 4, 5, 6)) == 5 and known.known((1, 2, 3, 9)) == 3
    )
    assert known.known((1, 2, 3, 4, 5)) == 4  # its last token is computed again, for its logits
    assert known.longest((2, 3)) == (0, []) and known.known((1, 2)) == 0
    for ids, pieces in {
        (1, 2, 3, 4, 5, 6): [[0, 1, 2], [3, 4]],
        (1, 2, 3, 4, 5): [[0, 1, 2], [3]],
        (1, 2, 3): [[0, 1]],
        (1, 2, 3, 6): [[0, 1, 2]],
    }.items():
        assert [k.flatten().tolist() for ((k, _),) in known.longest(ids)[1]] == pieces
    known.put((8, 9, 1, 2), 3, layers(3, 4))  # what is before it is not known
    assert known.known((8, 9, 1, 2, 3)) == 0 and known.held == 6


def test_the_oldest_goes_and_nothing_loses_its_start():
    known = Prefixes(most=10)
    known.put((1, 2, 3), 0, layers(0, 3))
    known.put((1, 2, 3, 4, 5), 3, layers(3, 5))
    known.put((1, 2, 3, 6), 3, layers(3, 4))
    known.longest((1, 2, 3, 4, 5, 6))  # used last, and all that it starts with
    known.put((7, 7, 7, 7, 7), 0, layers(0, 5))
    assert known.held == 10 and known.known((1, 2, 3, 6, 7)) == 3  # the one of one token went
    known.put((7, 7, 7, 7, 7, 8), 5, layers(5, 6))
    assert known.held == 9 and known.known((1, 2, 3, 4, 5, 6)) == 3
    known.put((9, 9), 0, layers(0, 2))
    assert known.held == 8 and known.known((1, 2, 3, 4)) == 0
    known.put(
        tuple(range(11)), 0, layers(0, 11)
    )  # more than it may hold: not kept, and nothing goes for it
    assert known.held == 8
    known.clear()
    assert known.held == 0 and known.known((7, 7, 7, 7, 7, 8)) == 0


def test_a_model_that_forgets_its_window_is_not_reused(base):
    config = MistralConfig(
        vocab_size=len(base.tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=20,
    )
    torch.manual_seed(0)
    lm = replace(fresh(base, 0), model=MistralForCausalLM(config))
    steps = conversations(header=70)
    cached = replace(lm, cache_tokens=10_000)
    same(played(replace(lm), steps), played(cached, steps), atol=1e-5)
    assert cached._prefixes.held == 0
