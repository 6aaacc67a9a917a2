"""Benchmarks: ratios within one run, each beside its limit. ``qvlib bench NAME`` prints a table and, last, one JSON line.

On a shared machine read the ratios, not the seconds.
"""

from __future__ import annotations

import importlib

from .common import show

NAMES = ("env", "search", "scoring", "trainers")


def run(name: str, repeats: int) -> None:
    """Run a benchmark and print what it found."""
    rows, result = importlib.import_module(f".{name}", __name__).run(repeats)
    show(name, rows, result)
