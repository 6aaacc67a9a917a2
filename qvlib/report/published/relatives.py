"""Relatives of the method as published, and the share of pairs that Q orders, beside ours."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from qvlib.agents.arms import BASE
from qvlib.report.formats import relative
from qvlib.report.published.agents import Finished
from qvlib.report.published.figures import UNKNOWN, bounded, figures, ours, source, told


def relatives(runs: Sequence[Finished]) -> pd.DataFrame:
    """Relatives of the method on WebShop, as published, and the arm here that plays the same.

    Compared is the gain relative to the cloned agent, which they call SFT: ``paper_relative`` where
    the same source tells both, and of the first run that has the arm ``relative`` with its bounds.
    """
    known = figures()["relatives"]
    cloned = next(figure for figure in known if figure.get("arm") == BASE)
    rows = []
    for figure in known:
        arm = figure.get("arm", "")
        alike = (r for r in runs if r.benchmark == figure["benchmark"])
        run = next((r for r in alike if arm in r.metrics["arms"]), None)
        gain = run.metrics["gains"].get(arm) if run else None
        rows.append(
            {
                "method": figure["method"],
                "source": source(figure),
                "paper_reward": figure["reward"],
                "paper_relative": figure["reward"] / cloned["reward"] - 1
                if figure["source"] == cloned["source"]
                else None,
                "arm": arm,
                "run": run.name if run else "",
                "reward": run.metrics["arms"][arm]["reward_mean"] if run else None,
                **bounded(
                    "relative",
                    gain["relative"] if gain else None,
                    gain.get("relative_ci95") if gain else None,
                ),
            }
        )
    return pd.DataFrame(rows)


def display_relatives(table: pd.DataFrame) -> pd.DataFrame:
    """``relatives`` for reading: the paper's column beside ours."""
    return pd.DataFrame(
        [
            {
                "method": row["method"],
                "reward, published": f"{row['paper_reward']:.3f}",
                "reward, ours": "" if pd.isna(row["reward"]) else f"{row['reward']:.3f}",
                "over the cloned agent, published": relative(row["paper_relative"], 1) or UNKNOWN,
                "over the cloned agent, ours": ours(row, "relative", "+.1%"),
                "ours is": f"{row['arm']} of {row['run']}" if row["run"] else "not played",
                "source": row["source"],
            }
            for row in table.to_dict("records")
        ]
    )


def accuracy(runs: Sequence[Finished]) -> pd.DataFrame:
    """One row a run: the share of held-out pairs that its Q orders rightly, and the paper's.

    For reading: the paper's column beside ours, with its interval where the run tells one.
    """
    known = {figure["benchmark"]: figure for figure in figures()["accuracy"]}
    rows = []
    for run in runs:
        found, figure = run.metrics.get("preferences") or {}, known.get(run.benchmark)
        if not run.benchmark or found.get("held_out_accuracy") is None:
            continue
        row = bounded("accuracy", found["held_out_accuracy"], found.get("held_out_ci95"))
        rows.append(
            {
                "benchmark": run.benchmark,
                "run": run.name,
                "rightly ordered, paper": told(figure or {"source": ""}, "accuracy", "{:.0%}"),
                "rightly ordered, ours": ours(row, "accuracy", ".1%"),
                "pairs": found["held_out_pairs"],
                "source": source(figure) if figure else "",
            }
        )
    return pd.DataFrame(rows)
