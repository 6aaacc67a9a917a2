"""Reward against what is spent: arms of one trial as points, those that try again as curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from qvlib.agents.arms import ARMS, MAIN
from qvlib.report.budget import COSTS, WORDS, Study, curve, has
from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, label, panels
from qvlib.report.figures.placing import place_labels

LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Of curves, one after the other."""
BY_Q = "q_model"


def reward_by_spending(found: Study, table: pd.DataFrame) -> Figure:
    """Takes a study and ``budget.reckoned``.

    Above tokens, below steps a task, on logarithmic axes. Filled marks and orange curves ask a Q
    model; a dot is a trial. A thin line leads left to the agent's own tokens, without what Q reads
    at most.
    """
    figure, axes = panels(2, 1, (8.4, 9.4))
    needs = {arm.name: arm.needs for arm in ARMS}
    rows = table.to_dict("records")
    for panel, cost in zip(axes, COSTS, strict=True):
        curves = [row for row in rows if row["curve"]]
        for row, dashes in zip(curves, LINES * len(curves), strict=False):
            drawn = curve(found.of(row["arm"]), cost)
            colour = ORANGE if BY_Q in needs.get(row["arm"], ()) else BLUE
            panel.plot(
                drawn["spent"],
                drawn["reward"],
                color=colour,
                linestyle=dashes,
                linewidth=1.4,
                marker="." if has(found.of(row["arm"]), "trials") else "",
                markersize=5,
            )
        for row in rows:
            _point(panel, row, cost, BY_Q in needs.get(row["arm"], ()))
        main = next(row for row in rows if row["arm"] == MAIN)
        panel.axvline(main[cost], color=GREY, linewidth=0.9, linestyle=":", zorder=0)
        _logarithmic(panel)
        panel.set_xlim(left=0.6 * table[cost].min())
        panel.set_ylim(0, 1)
        label(
            panel,
            "",
            f"{WORDS[cost]}, a task (mean, logarithmic)",
            "mean terminal reward in [0, 1], 95 % interval",
        )
    own = found.of(MAIN)
    tasks, chains = own["task"].nunique(), own["seed"].nunique()
    axes[0].set_title(
        f"Reward by spending; {tasks} tasks, {chains} chain{'s' * (chains != 1)}; "
        f"dotted: what {MAIN} spends",
        fontsize=10,
        loc="left",
    )
    for panel, cost in zip(axes, COSTS, strict=True):
        place_labels(panel, [(row[cost], row["reward"], row["arm"]) for row in rows])
    return figure


def _point(axes: Axes, row: Mapping[str, Any], cost: str, asks_q: bool) -> None:
    colour = ORANGE if asks_q else BLUE if row["curve"] else DARK
    axes.errorbar(
        row[cost],
        row["reward"],
        yerr=[[row["reward"] - row["reward_low"]], [row["reward_high"] - row["reward"]]],
        color=colour,
        marker="s" if row["curve"] else "o",
        markersize=8 if row["arm"] == MAIN else 5.5,
        markerfacecolor=colour if asks_q else "white",
        linewidth=1.1,
        capsize=2.5,
        linestyle="none",
    )
    if cost == "tokens" and row["own_tokens"] < row["tokens"]:
        axes.plot(
            [row["own_tokens"], row["tokens"]], [row["reward"]] * 2, color=colour, linewidth=0.7
        )


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.4g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="#e5e5e5", linewidth=0.6)
