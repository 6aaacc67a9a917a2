"""Agents without and with Q: the paper's figures, and beside each what a run here earned.

A run is put beside the paper's row of the same model; one with a model that the paper has not,
beside the paper's smallest agent on that benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from qvlib.agents.arms import BASE, MAIN
from qvlib.agents.reranking import OTHER_Q_N5, OTHER_SAMPLE
from qvlib.base.paths import resolve
from qvlib.pipeline.params import Params
from qvlib.report import numbers
from qvlib.report.published.figures import bounded, figures, ours, source, told
from qvlib.report.results_files import read, read_metrics

NOT_RUN = "not run here"


@dataclass(frozen=True)
class Finished:
    """A run's numbers: ``metrics.json``, and the parameters of its ``manifest.json``."""

    name: str
    metrics: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def benchmark(self) -> str:
        """The world that it was played in; empty where an older run does not tell."""
        return str(self.metrics.get("environment") or "")


def compared(params: Params) -> list[Finished]:
    """The runs that a run is shown beside (``compared_runs``), and itself, the last.

    Its own numbers are those of its stages: its manifest is written when all notebooks are done.
    """
    own = Finished(params.run.name, numbers.metrics(params), params.flat())
    others = [name for name in params.run.compared_runs if name != own.name]
    return [*finished(resolve(params.run.results_dir), others), own]


def finished(results: Path, names: Sequence[str]) -> list[Finished]:
    """The runs of a results folder that have these names, in this order, each once.

    One without both files is left out.

    Raises:
        QvlibError: a file is not readable.
    """
    folders = [results / name for name in dict.fromkeys(names)]
    return [
        Finished(folder.name, read_metrics(folder), read(folder / "manifest.json")["parameters"])
        for folder in folders
        if _is_finished(folder)
    ]


def absent(params: Params) -> str:
    """Which runs are named to be shown (``compared_runs``) and have no results here; may be ""."""
    where = resolve(params.run.results_dir)
    others = [name for name in params.run.compared_runs if name != params.run.name]
    names = [name for name in dict.fromkeys(others) if not _is_finished(where / name)]
    if not names:
        return ""
    return f"Named in `compared_runs` and not among the results, so left out: {', '.join(names)}."


def _is_finished(folder: Path) -> bool:
    return (folder / "metrics.json").exists() and (folder / "manifest.json").exists()


def agents(runs: Sequence[Finished]) -> pd.DataFrame:
    """One row a published agent and run of it, then one a run of an agent that the paper has not.

    ``paper_<what>`` is the published number, nan where it could not be read; ``<what>`` ours, with
    ``_low`` and ``_high``. what: ``sample``, ``q`` (mean rewards), ``relative`` (gain).
    """
    rows = []
    for figure in figures()["agents"]:
        same = list(_of_agent(runs, figure))
        rows += [_row(figure, *each) for each in same or [(None, "")]]
    known = {(figure["benchmark"], figure["agent"]) for figure in figures()["agents"]}
    for run in runs:
        smallest = [f for f in figures()["agents"] if f["benchmark"] == run.benchmark][:1]
        model = run.parameters.get("agent", "small")
        if smallest and (run.benchmark, model) not in known:
            rows.append(_row(smallest[0], run, model))
    return pd.DataFrame(rows).sort_values("benchmark", kind="stable", ignore_index=True)


def _of_agent(
    runs: Sequence[Finished], figure: Mapping[str, Any]
) -> Iterator[tuple[Finished, str]]:
    """The runs that played a published agent, as their own or as the second one."""
    for run in runs:
        second = run.parameters.get("other_demonstrations", 0) and run.parameters.get("other_agent")
        if run.benchmark == figure["benchmark"] and figure["agent"] in (
            run.parameters.get("agent"),
            second,
        ):
            yield run, figure["agent"]


def _row(figure: Mapping[str, Any], run: Finished | None, model: str) -> dict[str, Any]:
    row = {
        "benchmark": figure["benchmark"],
        "paper_agent": figure["agent"],
        **{f"paper_{what}": figure.get(what) for what in ("sample", "q", "relative")},
        "source": source(figure),
        "run": run.name if run else "",
        "agent": model,
    }
    if run is None:
        return row
    arms, gains = run.metrics["arms"], run.metrics["gains"]
    own = model == run.parameters.get("agent", "small")
    sample, reranked = (BASE, MAIN) if own else (OTHER_SAMPLE.name, OTHER_Q_N5.name)
    gain = gains[MAIN] if own else run.metrics["other_agent_gain"]
    return row | {
        **bounded("sample", arms[sample]["reward_mean"], arms[sample]["ci95"]),
        **bounded("q", arms[reranked]["reward_mean"], arms[reranked]["ci95"]),
        **bounded("gain", gain["mean"], gain["ci95"]),
        **bounded("relative", gain["relative"], gain.get("relative_ci95")),
        "chains": run.metrics["chains"],
        "tasks": arms[sample]["tasks"],
    }


def display_agents(table: pd.DataFrame) -> pd.DataFrame:
    """``agents`` for reading: of each quantity the paper's beside ours."""
    forms = {"sample": ("one sample", "{:.2f}", ".3f"), "q": ("with Q", "{:.2f}", ".3f")}
    forms["relative"] = ("relative gain", "{:+.0%}", "+.0%")
    rows = []
    for row in table.to_dict("records"):
        known = {k.removeprefix("paper_"): v for k, v in row.items() if k.startswith("paper_")}
        figure = {k: v for k, v in known.items() if not pd.isna(v)} | {"source": row["source"]}
        shown = {
            "benchmark": row["benchmark"],
            "agent, paper": row["paper_agent"],
            "agent, ours": f"{row['agent']}, run {row['run']}" if row["run"] else NOT_RUN,
        }
        for what, (words, published, form) in forms.items():
            shown[f"{words}, paper"] = told(figure, what, published)
            shown[f"{words}, ours"] = ours(row, what, form)
        rows.append(shown | {"source": row["source"]})
    return pd.DataFrame(rows)
