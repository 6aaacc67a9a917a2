"""A chat model over a whole episode, with and without shared prompts.

Five replies and five scores a step.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from qvlib.base.seeding import generator
from qvlib.models.local import Ids, LocalModel
from qvlib.models.names import SMOLLM2
from qvlib.tools.bench.common import Rows, clock

EPISODES, STEPS = 1, 3
HEAD, GROWTH = 200, 80  # tokens: instructions and task, an action and what it showed
REPLIES, ACTION = 5, 8
CACHE = 20_000  # tokens
FEWER, FASTER = 4.0, 3.0  # prompt tokens and seconds, at least, of sharing against not
SAME = 1e-4  # nats, at most
WORKS = ("sampling", "scoring")
FEW, FAST = f"fewer (at least {FEWER:g} times)", f"faster (at least {FASTER:g} times)"
NEAR = f"largest difference (at most {SAME:g} nats)"


def run(repeats: int, model: str = SMOLLM2) -> tuple[Rows, dict[str, Any]]:
    """An episode of three steps with SmolLM2-135M-Instruct, whose prompt grows.

    From 200 tokens, by 80 a step.

    At each step five replies of at most 8 tokens are sampled, then five candidates are scored.
    ``singly`` pays for the prompt with each of them, ``shared`` once for the five samples and once
    for the five scores of a step, ``kept`` once an episode: the key-value cache of a prompt serves
    the prompts that start with it, and the same prompt when it is scored after it was sampled from.
    All three give the same numbers, up to the largest difference. Prompt tokens are those that were
    computed; they and the times are to be fewer and shorter than those of ``singly`` by the ratios
    at the columns' heads. Float32, one thread, CPU seconds, medians of rounds in which the ways
    take turns.

    Raises:
        QvlibError: the model's package is not installed, or the model given is none.
    """
    import torch

    from qvlib.models.loading import load_folder
    from qvlib.models.names import files_of

    torch.set_num_threads(1)
    return compare(load_folder(files_of(model)), repeats)


def compare(lm: LocalModel, repeats: int) -> tuple[Rows, dict[str, Any]]:
    """``run`` with a model of one's own."""
    lm = replace(lm, max_action_tokens=ACTION)
    ways = {
        "singly": (lm, True),
        "shared": (lm, False),
        "kept": (replace(lm, cache_tokens=CACHE), False),
    }
    problem = _problem(len(lm.tokenizer))
    rounds = [
        {way: _played(model, problem, singly) for way, (model, singly) in ways.items()}
        for _ in range(repeats + 1)
    ]
    parts = {  # the first is not counted
        (way, work): [played[way][work] for played in rounds[1:]] for way in ways for work in WORKS
    }
    rows = [
        _row(work, way, parts[way, work], parts["singly", work]) for work in WORKS for way in ways
    ]
    shared, kept = (
        {row["work"]: row for row in rows if row["way"] == way} for way in ("shared", "kept")
    )
    steps = {way: sum(row["prompt tokens"] for row in rows if row["way"] == way) for way in ways}
    return rows, {
        "ratio": min(row[FAST] for row in shared.values()),
        "least": FASTER,
        "fewer_tokens": min(row[FEW] for row in shared.values()),
        "least_fewer": FEWER,
        "kept_fewer_tokens": steps["singly"] / steps["kept"],
        "kept_against_shared": steps["shared"] / steps["kept"],
        "kept_faster": min(row[FAST] for row in kept.values()),
        "largest_difference": max(float(row[NEAR]) for row in rows),
        "most_difference": SAME,
    }


@dataclass
class Part:
    """What a way came to in one of the works.

    CPU seconds, prompt tokens that were computed, log-probabilities.
    """

    seconds: float = 0.0
    tokens: int = 0
    numbers: list[float] = field(default_factory=list)


def _row(work: str, way: str, rounds: Sequence[Part], singly: Sequence[Part]) -> dict[str, Any]:
    seconds, slow = (
        statistics.median(part.seconds for part in parts) for parts in (rounds, singly)
    )
    difference = np.abs(np.subtract(rounds[0].numbers, singly[0].numbers)).max()
    return {
        "work": work,
        "way": way,
        "prompt tokens": rounds[0].tokens,
        FEW: singly[0].tokens / rounds[0].tokens,
        "CPU s": seconds,
        FAST: slow / seconds,
        NEAR: f"{difference:.1e}",
    }


def _played(
    lm: LocalModel, problem: Sequence[tuple[list[Ids], list[list[Ids]]]], singly: bool
) -> dict[str, Part]:
    """The samples and the scores of each step, with nothing remembered of another round."""
    lm.forget()
    parts = {work: Part() for work in WORKS}
    for step, (prompts, candidates) in enumerate(problem):
        draws = [
            [generator(step, i, k).random for k in range(REPLIES)] for i in range(len(prompts))
        ]
        for part, call, asked in (
            (parts["sampling"], _sampled, draws),
            (parts["scoring"], _scored, candidates),
        ):
            lm.usage.clear()
            start = clock()
            part.numbers += (
                _one_by_one(lm, call, prompts, asked) if singly else call(lm, prompts, asked)
            )
            part.seconds += clock() - start
            part.tokens += lm.usage["computed_prompt_tokens"]
    return parts


def _sampled(lm: LocalModel, prompts: Sequence[Ids], draws: Sequence[Sequence[Any]]) -> list[float]:
    return [log_prob for row in lm.sample(prompts, draws, 1.0, 0.9) for _, log_prob in row]


def _scored(
    lm: LocalModel, prompts: Sequence[Ids], replies: Sequence[Sequence[Ids]]
) -> list[float]:
    return list(chain.from_iterable(lm.log_probs(prompts, replies)))


def _one_by_one(
    lm: LocalModel,
    call: Callable[..., list[float]],
    prompts: Sequence[Ids],
    asked: Sequence[Sequence[Any]],
) -> list[float]:
    """As ``call``, each reply in a call that remembers nothing of the others."""
    log_probs: list[float] = []
    for prompt, row in zip(prompts, asked, strict=True):
        for reply in row:
            lm.forget()
            log_probs += call(lm, [prompt], [[reply]])
    return log_probs


def _problem(vocabulary: int) -> list[tuple[list[Ids], list[list[Ids]]]]:
    """(prompts, candidates of each) of every step."""
    rng = generator(0, "bench", "conversations")

    def some(n: int) -> Ids:
        return tuple(rng.integers(20, vocabulary, n).tolist())

    prompts, steps = [some(HEAD) for _ in range(EPISODES)], []
    for _ in range(STEPS):
        steps.append((prompts, [[some(ACTION) for _ in range(REPLIES)] for _ in prompts]))
        prompts = [prompt + some(GROWTH) for prompt in prompts]
    return steps
