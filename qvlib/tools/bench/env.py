"""Steps of the environment a second, its memory over many episodes.

And how both grow with the catalogue.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

from qvlib.tools.bench.common import Rows, clock

ORIGINAL = 50  # steps a second of the original with its Lucene index, text mode
LEAST = 100  # times the original
EPISODES, DEFAULT, SIZES = 10_000, 2_400, (1_000, 2_400, 10_000, 30_000, 100_000)
FULL = 1_180_000  # products of the full WebShop
GROWING = ("load (s)", "MB loaded", "search (ms)")


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Random admissible walks in generated catalogues, each size in a process of its own.

    Columns: CPU seconds to load; resident memory once loaded, its peak until then, and after a
    tenth, half and all of 10,000 episodes, MB; median and 95th percentile of 400 searches that were
    not asked before, ms; steps a second, their ratio to the original's about 50, and what that
    ratio is to be at least. The first episodes fill the shop's memory of page views, which is
    bounded; ``memory_growth`` is that of the second half. ``full`` carries the line through the two
    largest sizes on to the full 1.18 million products.
    """
    rows = []
    for products in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            for work in (_write, measure):
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    row = process.submit(work, Path(folder), products).result()
        rows.append(row)
    default = next(row for row in rows if row["products"] == DEFAULT)
    growth = default["MB after all"] / default["MB after half"] - 1
    return rows, {
        "ratio": default["times the original"],
        "least": LEAST,
        "memory_growth": round(growth, 4),
        "full": {"products": FULL, **{column: carried_on(rows, column) for column in GROWING}},
    }


def measure(folder: Path, products: int) -> dict[str, Any]:
    """One row of the table; in a process of its own, so that the memory is the shop's."""
    import numpy as np

    from qvlib.environments import webshop

    start = clock()
    shop = webshop.build(folder)
    loading = clock() - start
    loaded, peak = megabytes(), megabytes("VmHWM")
    tasks = shop.tasks("train")
    searches = [_timed_search(shop, tasks[i * 7 % len(tasks)].goal, i) for i in range(400)]
    start, steps, memory, done = clock(), 0, [], 0
    for until in (EPISODES // 10, EPISODES // 2, EPISODES)[: 3 if products == DEFAULT else 1]:
        steps += sum(_walk(shop, tasks[i % len(tasks)], i) for i in range(done, until))
        memory.append(megabytes())
        done = until
    rate = steps / (clock() - start)
    walked = dict(zip_longest(("MB after a tenth", "MB after half", "MB after all"), memory))
    return {
        "products": products,
        "goals": sum(len(shop.splits[s]) for s in shop.splits),
        "load (s)": loading,
        "MB loaded": loaded,
        "peak MB": peak,
        **walked,
        "search (ms)": float(np.median(searches)),
        "search, 95 % (ms)": float(np.quantile(searches, 0.95)),
        "steps/s": round(rate),
        "times the original": round(rate / ORIGINAL),
        "at least": LEAST,
    }


def carried_on(rows: Rows, column: str, products: int = FULL) -> float:
    """A column's value at a larger catalogue, along the straight line through the last two rows."""
    (n, low), (m, high) = ((row["products"], row[column]) for row in rows[-2:])
    return round(high + (products - m) * (high - low) / (m - n), 1)


def megabytes(what: str = "VmRSS") -> float:
    """Resident memory of this process now, or with ``VmHWM`` at its peak.

    Linux counts the parent's in a new process' ``ru_maxrss``, so that is only for other systems.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def figure(rows: Rows, result: dict[str, Any]):
    """Load time, memory and search time by the size of the catalogue.

    And what that gives for the full one.
    """
    from matplotlib.ticker import NullFormatter

    from qvlib.report.figures import BLUE, DARK, GREY, label, panels

    figure, axes = panels(1, 3, (10.0, 3.1))
    size, full = [row["products"] for row in rows], result["full"]
    contents = (
        ("Load time", "seconds (log scale)", {"load (s)": "loading"}),
        (
            "Memory of the process",
            "MB (log scale)",
            {"MB loaded": "loaded", "peak MB": "peak while loading"},
        ),
        (
            "A search not asked before",
            "milliseconds (log scale)",
            {"search (ms)": "median", "search, 95 % (ms)": "95th percentile"},
        ),
    )
    styles = ((BLUE, "o", "-"), (DARK, "v", "--"))
    for panel, (title, unit, columns) in zip(axes, contents, strict=True):
        for (column, name), (colour, marker, dashes) in zip(columns.items(), styles, strict=False):
            panel.plot(
                size,
                [row[column] for row in rows],
                dashes,
                marker=marker,
                color=colour,
                markersize=5,
                label=name,
            )
            if column in full:
                panel.plot(
                    [size[-1], FULL],
                    [rows[-1][column], full[column]],
                    ":",
                    marker=marker,
                    markevery=[1],
                    color=colour,
                    markerfacecolor="white",
                    markersize=6,
                )
        panel.plot(
            [],
            [],
            ":",
            marker="o",
            color=GREY,
            markerfacecolor="white",
            label="1.18 million, carried on",
        )
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.yaxis.set_major_formatter("{x:,g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.legend(frameon=False, fontsize=7)
        label(panel, title, "products (count, log scale)", unit)
    return figure


def _write(folder: Path, products: int) -> None:
    from qvlib.environments.webshop.generator import write_catalogue

    write_catalogue(folder, products, 0)


def _timed_search(shop: Any, goal: Any, number: int) -> float:
    words = " ".join((goal.query, *goal.attributes, str(number))).split()
    start = clock()
    shop.find(tuple(words))
    return 1000 * (clock() - start)


def _walk(shop: Any, task: Any, number: int) -> int:
    """Search for the goal, then random admissible actions to the end; returns the steps."""
    from qvlib.base.seeding import generator

    rng = generator(0, "bench", number)
    state = shop.step(shop.reset(task), f"search[{task.goal.query}]")
    while not state.done and state.depth < shop.max_steps:
        state = shop.step(state, state.admissible[int(rng.integers(len(state.admissible)))])
    return state.depth
