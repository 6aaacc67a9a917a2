"""Causal models of other families, small and random: sampled, scored and tuned."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from toy import small_lm
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
)

from qvlib.base.seeding import generator
from qvlib.estimators import step_dpo_trl as trl_training
from qvlib.estimators.data import PairIds, action_log_probs, pair_log_probs
from qvlib.models.local import LocalModel

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
FAMILIES = {
    "llama": lambda **k: LlamaConfig(**SIZES, num_key_value_heads=2, **k),
    "phi": lambda **k: PhiConfig(**SIZES, partial_rotary_factor=0.5, **k),
    "phi3": lambda **k: Phi3Config(**SIZES, num_key_value_heads=4, sliding_window=200, **k),
    "mistral": lambda **k: MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=None, **k),
    "qwen2": lambda **k: Qwen2Config(**SIZES, num_key_value_heads=2, **k),
    "gpt_neox": lambda **k: GPTNeoXConfig(**SIZES, **k),
    "gpt2": lambda **k: GPT2Config(n_embd=32, n_layer=2, n_head=4, **k),
}


@pytest.fixture(scope="module")
def tokenizer():
    return small_lm("float32").tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request, tokenizer) -> LocalModel:
    ids = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        FAMILIES[request.param](vocab_size=len(tokenizer), **ids), dtype=torch.float32
    )
    with torch.no_grad():
        model.get_output_embeddings().weight *= (
            8  # a random model is nearly uniform; this one has opinions
        )
    return LocalModel(model, tokenizer, max_action_tokens=5)


def prompts(steps: int = 3):
    """Three conversations of other lengths, growing at their ends, with one beginning."""
    rng = generator(0, "architectures")
    head = tuple(rng.integers(10, 300, 70).tolist())
    rows = [head + tuple(rng.integers(10, 300, 4 + 9 * i).tolist()) for i in range(3)]
    for _ in range(steps):
        yield rows
        rows = [row + tuple(rng.integers(10, 300, 6).tolist()) for row in rows]


REPLIES = [[(20, 21, 22), (23,)], [(24, 25)], [(26, 27, 28, 29), (30, 31)]]


def naive(lm: LocalModel, prompt, reply) -> float:
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([prompt + reply])).logits[0].double()
    return float(
        torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        .gather(1, torch.tensor(reply)[:, None])
        .sum()
    )


@pytest.mark.parametrize("cache_tokens", [0, 5000])
def test_scores_and_samples_are_those_of_full_passes(lm, cache_tokens):
    shared = LocalModel(lm.model, lm.tokenizer, max_action_tokens=5, cache_tokens=cache_tokens)
    for step, rows in enumerate(prompts()):
        expected = [[naive(lm, p, r) for r in rs] for p, rs in zip(rows, REPLIES, strict=True)]
        scores = shared.log_probs(rows, REPLIES)
        np.testing.assert_allclose([*chain(*scores)], [*chain(*expected)], atol=1e-4)
        draws = [[generator(step, i, k).random for k in range(3)] for i in range(3)]
        for p, row in zip(rows, shared.sample(rows, draws, 1.0, 0.9), strict=True):
            for ids, log_prob in row:
                assert log_prob == pytest.approx(naive(lm, p, ids), abs=1e-4)
    if cache_tokens:
        assert shared._prefixes.held


def test_packed_pairs_are_full_passes(lm):
    rows = [PairIds(p, (40, 41, lm.end), (42, lm.end)) for p in next(prompts())]
    with torch.no_grad():
        chosen, rejected = pair_log_probs(lm.model, rows, "sum", lm.end)
        expected = [
            action_log_probs(
                lm.model,
                [(r.prompt, a) for r in rows for a in (r.chosen, r.rejected)],
                "sum",
                lm.end,
            )
        ]
    torch.testing.assert_close(
        torch.stack([chosen, rejected], 1).flatten(), torch.cat(expected), atol=1e-4, rtol=0
    )


def test_a_lora_is_trained_and_merged_and_the_reference_stays(lm, tmp_path):
    rows = [PairIds(p, (40, 41, lm.end), (42, lm.end)) for p in next(prompts())]
    before = {name: weights.clone() for name, weights in lm.model.state_dict().items()}
    tuned, curve = trl_training.train(
        lm,
        rows * 4,
        (),
        beta=0.1,
        lr=1e-2,
        epochs=1,
        batch=4,
        rule="sum",
        seed=0,
        lora_rank=4,
        folder=tmp_path,
    )
    assert curve[0]["loss"] == pytest.approx(np.log(2), abs=1e-5) and curve[-1]["margin"] > 0.01
    assert all(
        torch.equal(weights, before[name]) for name, weights in lm.model.state_dict().items()
    )
    assert tuned.model.state_dict().keys() == before.keys()
