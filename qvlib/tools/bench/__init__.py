"""Benchmarks: ratios within one run, each beside its limit.

``qvlib bench NAME`` prints a table and, last, one JSON line. On a shared machine read the ratios,
not the seconds.
"""

from __future__ import annotations

import importlib
import inspect

from qvlib.base.errors import QvlibError
from qvlib.tools.bench.common import show, write

NAMES = (
    "env",
    "search",
    "search_rules",
    "cells",
    "scoring",
    "conversations",
    "precision",
    "worlds",
    "scienceworld",
    "trainers",
    "cluster",
)


def run(name: str, repeats: int, save: bool = False, model: str = "") -> None:
    """Run a benchmark and print what it found; ``save`` also writes it into ``results/bench``.

    model: a causal model in the place of SmolLM2, for the benchmarks that have it.

    Raises:
        QvlibError: what the benchmark needs is missing, or it has no model that could be another.
    """
    benchmark = importlib.import_module(f".{name}", __name__)
    if model and "model" not in inspect.signature(benchmark.run).parameters:
        raise QvlibError(f"--model: the benchmark {name} makes its own models; leave it out")
    rows, result = benchmark.run(repeats, model) if model else benchmark.run(repeats)
    if save:
        write(benchmark, name, rows, result)
    show(name, rows, result)
