"""Taking turns, and printing what came out."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Rows = list[dict[str, Any]]


def interleaved(arms: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each arm; they take turns, since a shared machine changes its pace. A first round is not counted."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(repeats + 1):
        for arm, run in arms.items():
            start = time.perf_counter()
            run()
            seconds[arm].append(time.perf_counter() - start)
    return {arm: statistics.median(s[1:]) for arm, s in seconds.items()}


def show(name: str, rows: Rows, result: Mapping[str, Any]) -> None:
    """Print the table and, last, one JSON line with the headline under ``ratio``."""
    import pandas as pd

    from ..tables import markdown

    print(markdown(pd.DataFrame(rows)))
    print(json.dumps({"benchmark": name, **result}))
