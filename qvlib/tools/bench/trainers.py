"""The two DPO trainers on a small model: why the plain loop is kept beside TRL."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qvlib.tools.bench.common import Rows, interleaved


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Both DPO trainers on a Llama of 0.86 M parameters.

    300 pairs, prompts of about 70 tokens, batches of 32.
    Seconds of one epoch with all preparation (reference log-probabilities, checkpoints), medians of
    interleaved repeats; importing the libraries is apart.
    """
    from qvlib.estimators import step_dpo_loop as dpo

    start = time.perf_counter()
    from qvlib.estimators import step_dpo_trl as trl_training

    imported = time.perf_counter() - start
    lm, pairs = _small_problem(pairs=300)
    settings = {"beta": 0.1, "lr": 3e-4, "epochs": 1, "batch": 32, "rule": "sum", "seed": 0}

    def with_trl(rank: int, pairs: Sequence[Any] = pairs) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trl_training.train(lm, pairs, (), **settings, lora_rank=rank, folder=Path(folder))

    arms = {
        "loop": lambda: dpo.train(lm, pairs, (), **settings),
        "trl": lambda: with_trl(0),
        "trl, one batch": lambda: with_trl(0, pairs[:32]),
        "trl, LoRA of rank 8": lambda: with_trl(8),
    }
    seconds = interleaved(arms, repeats)
    rows = [
        {"trainer": arm, "seconds": s, "times the loop": s / seconds["loop"]}
        for arm, s in seconds.items()
    ]
    return rows, {
        "ratio": seconds["trl"] / seconds["loop"],
        "loop_s": seconds["loop"],
        "trl_s": seconds["trl"],
        "import_s": imported,
        "parameters": lm.model.num_parameters(),
        "pairs": len(pairs),
    }


def _small_problem(pairs: int):
    """A random model of the small agent's size and random pairs."""
    import torch

    from qvlib.base.seeding import generator
    from qvlib.estimators.data import PairIds
    from qvlib.models.local import LocalModel
    from qvlib.models.small import make_model
    from qvlib.models.tokenizers import one_token_a_word

    torch.set_num_threads(1)
    tokenizer = one_token_a_word(1700)
    rng = generator(0, "bench")

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 1700, rng.integers(low, high)).tolist())

    rows = [PairIds(ids(50, 91), (*ids(2, 7), 0), (*ids(2, 7), 0)) for _ in range(pairs)]
    return LocalModel(make_model(tokenizer, 128, 3, 4, 0), tokenizer), rows
