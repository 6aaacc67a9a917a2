"""A chat model over whole episodes: five replies and five scores a step, with and without shared prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..models.local import Ids, LocalModel
from ..seeding import generator
from .common import Rows, interleaved

EPISODES, STEPS, HEAD, GROWTH = 2, 5, 250, 70  # tokens: instructions and task, an action and what it showed
REPLIES, ACTION = 5, 8
CACHE = 20_000  # tokens
FEWER, FASTER = 4.0, 3.0  # prompt tokens and seconds, at least, of sharing against not


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Two episodes of five steps with SmolLM2-135M-Instruct: prompts of 250 tokens that grow by 70 a step.

    At each step five replies of at most 8 tokens are sampled and five candidates scored. ``singly`` pays for the prompt
    with each of them, ``shared`` once a step, ``kept`` once an episode: the key-value cache of a prompt serves the prompts
    that start with it. All three give the same numbers (the largest difference is told). Prompt tokens are those that were
    computed; ratios are against ``singly``. Float32, one thread, CPU seconds.

    Raises:
        QvlibError: the model's package is not installed.
    """
    import torch

    from ..models.local import load
    from ..pipeline.models import found

    torch.set_num_threads(1)
    return compare(load(found("smollm2")), repeats)


def compare(lm: LocalModel, repeats: int) -> tuple[Rows, dict[str, Any]]:
    """``run`` with a model of one's own."""
    lm = replace(lm, max_action_tokens=ACTION)
    ways = {"singly": (lm, True), "shared": (lm, False), "kept": (replace(lm, cache_tokens=CACHE), False)}
    problem = _problem(len(lm.tokenizer))
    numbers: dict[str, list[float]] = {}
    tokens: dict[str, int] = {}

    def play(way: str) -> None:
        model, singly = ways[way]
        model.forget()
        model.usage.clear()
        numbers[way] = _played(model, problem, singly)
        tokens[way] = model.usage["computed_prompt_tokens"]

    seconds = interleaved({way: (lambda way=way: play(way)) for way in ways}, repeats)
    rows = [{"way": way, "prompt tokens": tokens[way], "CPU s": seconds[way], "fewer tokens": tokens["singly"] / tokens[way],
             "faster": seconds["singly"] / seconds[way],
             "largest difference (nats)": f"{np.abs(np.subtract(numbers[way], numbers['singly'])).max():.1e}"} for way in ways]
    kept = rows[-1]
    return rows, {"ratio": kept["faster"], "least": FASTER, "fewer_tokens": kept["fewer tokens"], "least_fewer": FEWER,
                  "largest_difference": max(float(row["largest difference (nats)"]) for row in rows)}


def _played(lm: LocalModel, problem: Sequence[tuple[list[Ids], list[list[Ids]]]], singly: bool) -> list[float]:
    """Log-probabilities of all samples and candidates, step by step, the episodes side by side."""
    found: list[float] = []
    for step, (prompts, candidates) in enumerate(problem):
        for i, prompt in enumerate(prompts):
            for k in range(REPLIES if singly else 0):
                lm.forget()
                found += [p for _, p in lm.sample([prompt], [[_draw(step, i, k)]], 1.0, 0.9)[0]]
        if not singly:
            draws = [[_draw(step, i, k) for k in range(REPLIES)] for i in range(len(prompts))]
            found += [p for row in lm.sample(prompts, draws, 1.0, 0.9) for _, p in row]
        for prompt, replies in zip(prompts, candidates, strict=True):
            for reply in replies if singly else ():
                lm.forget()
                found += lm.log_probs([prompt], [[reply]])[0]
        if not singly:
            found += sum(lm.log_probs(prompts, candidates), [])
    return found


def _draw(step: int, episode: int, k: int):
    return generator(step, episode, k).random


def _problem(vocabulary: int) -> list[tuple[list[Ids], list[list[Ids]]]]:
    """(prompts, candidates of each) of every step."""
    rng = generator(0, "bench", "conversations")

    def some(n: int) -> Ids:
        return tuple(rng.integers(20, vocabulary, n).tolist())

    rows, made = [some(HEAD) for _ in range(EPISODES)], []
    for _ in range(STEPS):
        made.append((rows, [[some(ACTION) for _ in range(REPLIES)] for _ in rows]))
        rows = [row + some(GROWTH) for row in rows]
    return made
