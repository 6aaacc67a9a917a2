"""Replies beside each other in a row get what each gets alone, or the model is not asked so."""

from __future__ import annotations

import pytest
import torch
from toy import small_lm
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
)

from qvlib.base.seeding import generator
from qvlib.models import branching
from qvlib.models.hidden import headless
from qvlib.models.local import LocalModel

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = LlamaConfig(**SIZES, intermediate_size=48, max_position_embeddings=128)
WINDOW = MistralConfig(
    **SIZES, intermediate_size=48, num_key_value_heads=1, head_dim=16, sliding_window=8
)
BLOOM = BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=2)  # ALiBi: by mask alone
NEO = GPTNeoConfig(  # its windows are in its attention, and wider than what is tried
    vocab_size=60,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    attention_types=[[["global", "local"], 1]],
    window_size=64,
)


def made(config) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()


def rows(prompts: int = 4, replies: int = 5):
    """(prompt, reply) of prompts and replies of many lengths, one of a single token."""
    rng = generator(0, "branches")
    some = [tuple(rng.integers(3, 60, 9 + 4 * i).tolist()) for i in range(prompts)]
    return [
        (prompt, tuple(rng.integers(3, 60, 1 + (i * replies + k) % 4).tolist()))
        for i, prompt in enumerate(some)
        for k in range(1 + (i + 1) % replies)
    ]


@pytest.mark.parametrize(
    "config, can",
    [(LLAMA, True), (WINDOW, False), (BLOOM, False), (NEO, False)],
    ids=["llama", "window", "bloom", "gpt_neo"],
)
def test_which_models_can(config, can):
    assert branching.branches(made(config)) is can


@pytest.mark.parametrize("hidden", [False, True], ids=["logits", "hidden states"])
def test_replies_beside_each_other_get_what_they_get_alone(hidden, monkeypatch):
    lm = small_lm("float64")
    one, other = (headless(lm) if hidden else lm.tuned(lm.model) for _ in range(2))
    monkeypatch.setattr(other, "_branches", False)
    asked = rows()
    got, want = one.reply_logits(asked), other.reply_logits(asked)
    assert one._branches is True and got.shape == want.shape
    assert one.usage == other.usage
    for i, (_, reply) in enumerate(asked):
        torch.testing.assert_close(got[i, : len(reply)], want[i, : len(reply)], rtol=0, atol=1e-9)


def test_the_keys_of_a_prompt_are_not_repeated(monkeypatch):
    """A pass has as many rows as there are prompts."""
    lm = small_lm("float64")
    lm = LocalModel(lm.model, lm.tokenizer)
    assert lm._can_branch()
    passes = []
    forward = lm.model.forward

    def noted(*args, **given):
        passes.append(len(given["input_ids"]))
        return forward(*args, **given)

    monkeypatch.setattr(lm.model, "forward", noted)
    lm.reply_logits(rows())
    assert passes == [4, 4] and len(rows()) > 8


@pytest.mark.parametrize("config, can", [(LLAMA, True), (BLOOM, False)], ids=["llama", "bloom"])
def test_what_comes_out_decides(config, can):
    """Not what a model says of itself: Bloom's distances are those in the row."""
    model = made(config)
    model._supports_attention_backend = True
    assert branching.branches(model) is can


def test_a_model_that_refuses_positions_of_ones_own(monkeypatch):
    model = made(LLAMA)

    def refuses(*args, position_ids=None, **given):
        raise TypeError("no positions of one's own")

    monkeypatch.setattr(model, "forward", refuses)
    assert branching.branches(model) is False
