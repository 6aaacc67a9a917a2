"""Scoring candidates and sampling replies after a shared prompt.

Against paying for the prompt with each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from qvlib.models.local import Ids, LocalModel
from qvlib.tools.bench.common import Rows, interleaved

PROMPT, REPLIES, ACTION = 800, 5, 8  # tokens, candidates or samples, tokens
LENGTHS = {"one prompt": (800,), "mixed lengths": (200, 350, 500, 650, 800)}
# width, layers, rounds for each that is asked (short ones are noisy): the small agent's size, and
# 30 M parameters
SIZES = {"small": (128, 2, 9), "30 M": (512, 8, 1)}
LEAST = 3.5  # times faster, for scoring


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Five replies of 8 tokens, after one prompt and after each of five in one call.

    One prompt of 800 tokens, five of 200 to 800.
    Without sharing each reply pays for its whole prompt: scores are full passes, the five replies
    of a prompt in one batch without padding; each sample is a call of its own. Both ways give the
    same numbers (the largest difference is told). The limit is the ratio of the tokens that the two
    have to compute; scoring is to be at least 3.5 times faster. Llamas of random weights in
    float32, one thread, CPU seconds.
    """
    import torch

    torch.set_num_threads(1)
    rows = []
    for size, (width, layers, rounds) in SIZES.items():
        lm = _model(width, layers)
        for batch, lengths in LENGTHS.items():
            for work, row in _works(lm, lengths, rounds * repeats):
                least = LEAST if work == "scoring" else None
                rows.append(
                    {"model": size, "replies": work, "batch": batch, **row, "at least": least}
                )
    scored = [row for row in rows if row["replies"] == "scoring"]
    return rows, {
        "ratio": min(row["ratio"] for row in scored),
        "least": LEAST,
        "sampling_ratio": min(row["ratio"] for row in rows if row["replies"] == "sampling"),
        "largest_difference": max(float(row["largest difference (nats)"]) for row in rows),
    }


def _works(
    lm: LocalModel, lengths: Sequence[int], repeats: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(work, its row) of scoring and of sampling after prompts of these lengths."""
    prompts, replies = _problem(lengths, len(lm.tokenizer))
    works = {
        "scoring": (
            lambda: lm.log_probs(prompts, replies),
            lambda: _full_passes(lm, prompts, replies),
        ),
        "sampling": (
            lambda: _sampled(lm, prompts, range(REPLIES)),
            lambda: _one_by_one(lm, prompts),
        ),
    }
    for work, (shared, apart) in works.items():
        yield work, _row(lm, shared, apart, repeats)


def _row(
    lm: LocalModel, shared: Callable[[], Any], apart: Callable[[], Any], repeats: int
) -> dict[str, Any]:
    """Both ways timed, with nothing remembered, against the tokens they compute.

    And how far their numbers differ.
    """

    def fresh(call: Callable[[], Any]) -> Any:
        lm.forget()
        lm.usage.clear()
        return call()

    seconds = interleaved({"shared": lambda: fresh(shared), "apart": lambda: fresh(apart)}, repeats)
    together, tokens = np.array(fresh(shared)), lm.usage["computed_tokens"]
    difference = np.abs(together - np.array(fresh(apart))).max()
    ratio, limit = seconds["apart"] / seconds["shared"], lm.usage["computed_tokens"] / tokens
    return {
        "shared (CPU s)": seconds["shared"],
        "not shared (CPU s)": seconds["apart"],
        "largest difference (nats)": f"{difference:.1e}",
        "ratio": ratio,
        "limit": limit,
        "of the limit": f"{ratio / limit:.0%}",
    }


def _full_passes(
    lm: LocalModel, prompts: Sequence[Ids], replies: Sequence[Sequence[Ids]]
) -> list[list[float]]:
    """Log-probabilities of the replies, each after a pass over its whole prompt."""
    import torch

    from qvlib.estimators.data import action_log_probs

    lm.usage["computed_tokens"] += sum(
        len(p) + len(r) for p, rs in zip(prompts, replies, strict=True) for r in rs
    )
    with torch.inference_mode():
        return [
            action_log_probs(lm.model, [(p, r) for r in rs], "sum", lm.end).tolist()
            for p, rs in zip(prompts, replies, strict=True)
        ]


def _sampled(lm: LocalModel, prompts: Sequence[Ids], numbers: Sequence[int]) -> list[list[float]]:
    """Log-probabilities of the samples with these numbers after each prompt."""
    from qvlib.base.seeding import generator

    draws = [[generator(len(p), k).random for k in numbers] for p in prompts]
    return [[log_prob for _, log_prob in row] for row in lm.sample(prompts, draws, 1.0, 0.9)]


def _one_by_one(lm: LocalModel, prompts: Sequence[Ids]) -> list[list[float]]:
    """As ``_sampled``, each reply in a call that remembers nothing of the others."""
    log_probs: list[list[float]] = []
    for prompt in prompts:
        log_probs.append([])
        for k in range(REPLIES):
            lm.forget()
            log_probs[-1] += _sampled(lm, [prompt], [k])[0]
    return log_probs


def _model(width: int, layers: int) -> LocalModel:
    import torch

    from qvlib.models.small import make_model
    from qvlib.models.tokenizers import one_token_a_word

    tokenizer = one_token_a_word(2048)
    model = make_model(tokenizer, width, layers, width // 32, 0)
    # As drawn, all tokens are about equally likely and a sample hangs on rounding: this head
    # spreads the logits.
    drawn = torch.randn(len(tokenizer), width, generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(3 * width**-0.5 * drawn)
    return LocalModel(model, tokenizer, max_action_tokens=ACTION)


def _problem(lengths: Sequence[int], vocabulary: int) -> tuple[list[Ids], list[list[Ids]]]:
    """Random prompts of these lengths, and for each ``REPLIES`` random replies that end."""
    from qvlib.base.seeding import generator

    rng = generator(0, "bench", "scoring", len(lengths))
    prompts = [tuple(rng.integers(1, vocabulary, n).tolist()) for n in lengths]
    return prompts, [
        [(*rng.integers(1, vocabulary, ACTION - 1).tolist(), 0) for _ in range(REPLIES)]
        for _ in lengths
    ]
