"""Taking turns, printing what came out, and keeping it."""

from __future__ import annotations

import inspect
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time as clock  # CPU seconds: the wall clock times the neighbours too
from types import ModuleType
from typing import Any

Rows = list[dict[str, Any]]


def interleaved(
    arms: Mapping[str, Callable[[], Any]], repeats: int, timer: Callable[[], float] = clock
) -> dict[str, float]:
    """Median seconds of each arm by ``timer``: of CPU, of this process, where none is given.

    They take turns, since a shared machine changes its pace. A first round is not counted.
    """
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(repeats + 1):
        for arm, run in arms.items():
            start = timer()
            run()
            seconds[arm].append(timer() - start)
    return {arm: statistics.median(s[1:]) for arm, s in seconds.items()}


def show(name: str, rows: Rows, result: Mapping[str, Any]) -> None:
    """Print the table and, last, one JSON line with the headline under ``ratio``."""
    print(f"{_table(rows)}\n{_line(name, result)}")


def write(
    benchmark: ModuleType,
    name: str,
    rows: Rows,
    result: Mapping[str, Any],
    folder: Path | None = None,
) -> Path:
    """Write ``results/bench/<name>.json`` and ``.md``; returns the folder.

    With what they came from. A benchmark with a function ``figure`` also gets ``<name>.png``.
    """
    from qvlib.base.files import write_atomic, write_json
    from qvlib.base.paths import resolve
    from qvlib.report import figures
    from qvlib.runs import provenance

    folder = folder or resolve("results") / "bench"
    machine, git = provenance.machine("cpu"), provenance.git_state()
    packages = provenance.package_versions()
    write_json(
        folder / f"{name}.json",
        {
            "benchmark": name,
            **result,
            "rows": rows,
            "finished": provenance.now(),
            "git": git,
            "machine": machine,
            "packages": packages,
        },
    )
    code = f"commit {git['commit'][:10]}" if git else "no commit known"
    code += " with uncommitted changes" if git and git["dirty"] else ""
    versions = ", ".join(f"{package} {version}" for package, version in packages.items() if version)
    meaning = inspect.getdoc(benchmark.run).partition("\n\nRaises:")[0]
    origin = (
        f"`qvlib bench {name}`, {code}, {machine['cpus']} processors, {machine['platform']}; "
        f"{versions}."
    )
    text = f"{meaning}\n\n{_table(rows)}\n\n```json\n{_line(name, result)}\n```\n\n{origin}\n"
    write_atomic(folder / f"{name}.md", text)
    if hasattr(benchmark, "figure"):
        write_atomic(folder / f"{name}.png", figures.png(benchmark.figure(rows, result)))
    return folder


def _table(rows: Rows) -> str:
    import pandas as pd

    from qvlib.report.tables import markdown

    return markdown(pd.DataFrame(rows))


def _line(name: str, result: Mapping[str, Any]) -> str:
    return json.dumps({"benchmark": name, **result})
