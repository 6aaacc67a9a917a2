"""Benchmarks: ratios within one run, each beside its limit.

``qvlib bench NAME`` prints a table and, last, one JSON line. On a shared machine read the ratios, not the seconds.
"""

from __future__ import annotations

import importlib

from .common import show, write

NAMES = ("env", "search", "scoring", "conversations", "worlds", "trainers")


def run(name: str, repeats: int, save: bool = False) -> None:
    """Run a benchmark and print what it found; ``save`` also writes it into ``results/bench``."""
    benchmark = importlib.import_module(f".{name}", __name__)
    rows, result = benchmark.run(repeats)
    if save:
        write(benchmark, name, rows, result)
    show(name, rows, result)
