"""Small benchmarks that the documentation quotes: ``python -m qvlib.bench NAME``.

Each prints a table and, last, one JSON line. On a shared machine read ratios, not seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def trainers(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Both DPO trainers on a Llama of 0.86 M parameters: 300 pairs, prompts of about 70 tokens, batches of 32.

    Seconds of one epoch with all preparation (reference log-probabilities, checkpoints), medians of
    interleaved repeats; importing the libraries is apart.
    """
    from . import dpo

    start = time.perf_counter()
    from . import trl_training

    imported = time.perf_counter() - start
    lm, pairs = _small_problem(pairs=300)
    settings = {"beta": 0.1, "lr": 3e-4, "epochs": 1, "batch": 32, "rule": "sum", "seed": 0}

    def with_trl(rank: int, pairs: Sequence[Any] = pairs) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trl_training.train(lm, pairs, (), **settings, lora_rank=rank, folder=Path(folder))

    arms = {"loop": lambda: dpo.train(lm, pairs, (), **settings), "trl": lambda: with_trl(0),
            "trl, one batch": lambda: with_trl(0, pairs[:32]), "trl, LoRA of rank 8": lambda: with_trl(8)}
    seconds = _interleaved(arms, repeats)
    rows = [{"trainer": arm, "seconds": s, "times the loop": s / seconds["loop"]} for arm, s in seconds.items()]
    return rows, {"ratio": seconds["trl"] / seconds["loop"], "loop_s": seconds["loop"], "trl_s": seconds["trl"],
                  "import_s": imported, "parameters": lm.model.num_parameters(), "pairs": len(pairs)}


def _small_problem(pairs: int):
    """A random model of the small agent's size and random pairs."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from .dpo import PairIds
    from .models.local import LocalModel
    from .models.small import make_model
    from .seeding import generator

    torch.set_num_threads(1)
    words = {f"w{i}": i for i in range(1700)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")),
                                        eos_token="w0", pad_token="w0")
    rng = generator(0, "bench")

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 1700, rng.integers(low, high)).tolist())

    rows = [PairIds(ids(50, 91), (*ids(2, 7), 0), (*ids(2, 7), 0)) for _ in range(pairs)]
    return LocalModel(make_model(tokenizer, 128, 3, 4, 0), tokenizer), rows


def _interleaved(arms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each arm; a first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(repeats + 1):
        for arm, run in arms.items():
            start = time.perf_counter()
            run()
            seconds[arm].append(time.perf_counter() - start)
    return {arm: statistics.median(s[1:]) for arm, s in seconds.items()}


BENCHMARKS: dict[str, Callable[[int], tuple[Rows, dict[str, Any]]]] = {"trainers": trainers}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one benchmark by name."""
    import pandas as pd

    parser = argparse.ArgumentParser(prog="python -m qvlib.bench", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(argv)
    rows, result = BENCHMARKS[asked.name](asked.repeats)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))
    print(json.dumps({"benchmark": asked.name, **result}))


if __name__ == "__main__":
    main()
