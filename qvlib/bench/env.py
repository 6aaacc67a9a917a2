"""Steps of the environment a second, its memory over many episodes, and how it grows with the catalogue."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .common import Rows

ORIGINAL = 50  # steps a second of the original with its Lucene index, text mode
EPISODES, SIZES = 10_000, (2_400, 10_000, 100_000)


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Random admissible walks in embedded catalogues, each size in a process of its own.

    Columns: seconds to load; steps a second; ratio to the original's about 50 steps a second; resident memory after loading
    and after the episodes, MB; median and 95th percentile of a search that was not asked before, ms.
    """
    from ..parallel import stream

    rows = [row for products in SIZES for row in _alone(stream, products, repeats)]
    return rows, {"ratio": rows[0]["times the original"],
                  "memory_growth": rows[0]["MB after the episodes"] / rows[0]["MB before"] - 1}


def _alone(stream: Any, products: int, repeats: int) -> Iterator[dict[str, Any]]:
    """In a spawned process, so that memory is its own: ``stream`` spawns for two parts or more."""
    yield from stream(measure, [(products, repeats), (0, 0)])


def measure(products: int, repeats: int) -> Iterator[dict[str, Any]]:
    """One row of the table."""
    if not products:
        return
    import numpy as np

    from ..environments import webshop
    from ..environments.webshop.generator import write_catalogue
    from ..seeding import generator

    with tempfile.TemporaryDirectory() as folder:
        write_catalogue(Path(folder), products, 0)
        start = time.perf_counter()
        shop = webshop.build(Path(folder))
        loading = time.perf_counter() - start
    tasks = shop.tasks("train")
    queries = []
    for i in range(0, 400):
        words = tuple(dict.fromkeys(tasks[i * 7 % len(tasks)].goal.query.split() + [str(i)]))
        start = time.perf_counter()
        shop.find(words)
        queries.append(1000 * (time.perf_counter() - start))
    before = _megabytes()
    episodes = EPISODES if products == SIZES[0] else EPISODES // 10
    steps, start = 0, time.perf_counter()
    for number in range(episodes):
        rng = generator(0, "bench", number)
        task = tasks[number % len(tasks)]
        state = shop.step(shop.reset(task), f"search[{task.goal.query}]")
        steps += 1
        while not state.done and state.depth < shop.max_steps:
            state = shop.step(state, state.admissible[int(rng.integers(len(state.admissible)))])
            steps += 1
    rate = steps / (time.perf_counter() - start)
    yield {"products": products, "goals": sum(len(shop.tasks(s)) for s in ("train", "dev", "test")), "load (s)": round(loading, 1),
           "steps/s": round(rate), "times the original": round(rate / ORIGINAL), "MB before": round(before),
           "MB after the episodes": round(_megabytes()), "episodes": episodes, "search, median (ms)": float(np.median(queries)),
           "search, 95 % (ms)": float(np.quantile(queries, 0.95))}


def _megabytes() -> float:
    """Peak resident memory of this process: growth over the episodes shows in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
