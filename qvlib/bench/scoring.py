"""Scoring candidates after a shared prompt, against full passes of prompt and candidate."""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import Rows, interleaved

PROMPT, CANDIDATES, ACTION = 800, 5, 8  # tokens, replies, tokens


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Five candidates of 8 tokens after a prompt of 800, and a batch of histories of 200 to 800 tokens.

    Both ways give the same sums of log-probabilities (the largest difference is told). The limit is the
    ratio of tokens computed: CANDIDATES (PROMPT + ACTION) / (PROMPT + CANDIDATES ACTION) for one prompt.
    Llamas of random weights in float32, one thread: the small agent's size, and one of 30 M parameters.
    """
    import torch

    torch.set_num_threads(1)
    rows, ratios = [], {}
    for size, (width, layers) in {"small": (128, 2), "30 M": (512, 8)}.items():
        lm = _model(width, layers)
        for batch, lengths in {"one prompt": [PROMPT], "mixed lengths": [200, 350, 500, 650, 800]}.items():
            prompts, replies = _problem(lengths, len(lm.tokenizer))
            arms = {"shared": lambda: lm.log_probs(prompts, replies), "full passes": lambda: _full(lm, prompts, replies)}
            seconds = interleaved({arm: _forgetting(lm, call) for arm, call in arms.items()}, repeats)
            apart = max(abs(np.array(a) - np.array(b)).max() for a, b in zip(arms["shared"](), arms["full passes"](), strict=True))
            computed = sum(n + CANDIDATES * (ACTION - 1) for n in lengths)
            ratio = seconds["full passes"] / seconds["shared"]
            rows.append({"model": size, "batch": batch, "shared (s)": seconds["shared"], "full passes (s)": seconds["full passes"],
                         "ratio": ratio, "limit": sum(CANDIDATES * (n + ACTION) for n in lengths) / computed,
                         "largest difference (nats)": f"{apart:.1e}"})
            ratios[size, batch] = ratio, float(apart)
    return rows, {"ratio": min(r for r, _ in ratios.values()), "largest_difference": max(d for _, d in ratios.values())}


def _model(width: int, layers: int):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from ..models.local import LocalModel
    from ..models.small import make_model

    words = {f"w{i}": i for i in range(2048)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")),
                                        eos_token="w0", pad_token="w0")
    return LocalModel(make_model(tokenizer, width, layers, width // 32, 0), tokenizer)


def _problem(lengths: list[int], vocabulary: int):
    from ..seeding import generator

    rng = generator(0, "bench", "scoring", len(lengths))
    prompts = [tuple(rng.integers(1, vocabulary, n).tolist()) for n in lengths]
    return prompts, [[(*rng.integers(1, vocabulary, ACTION - 1).tolist(), 0) for _ in range(CANDIDATES)] for _ in lengths]


def _full(lm, prompts, replies) -> list[list[float]]:
    """Every candidate with its whole prompt, all in one padded batch."""
    import torch

    from ..dpo import action_log_probs

    with torch.inference_mode():
        rows = [(p, r) for p, rs in zip(prompts, replies, strict=True) for r in rs]
        found = action_log_probs(lm.model, rows, "sum", lm.end).tolist()
    return [found[i: i + CANDIDATES] for i in range(0, len(found), CANDIDATES)]


def _forgetting(lm, call):
    """A call that cannot use what an earlier one left."""
    def fresh():
        lm._scores.clear()
        return call()
    return fresh
