"""Reward against steps in the environment: the anytime curve of MCTS, and arms as points."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from qvlib.agents.arms import BASE, MAIN, SEARCH
from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, PALE, label, panels
from qvlib.report.value_search import BY_VALUES, ONE_TRIAL

STYLES = {  # arm: colour, marker, filled
    SEARCH: (DARK, "D", False),
    "beam": (BLUE, "o", True),
    "best_first": (BLUE, "^", True),
    MAIN: (ORANGE, "o", False),
    "q_n10": (ORANGE, "s", False),
    "saycan_n5": (ORANGE, "v", False),
    "likely_n5": (GREY, "s", True),
    BASE: (GREY, "X", True),
}
WIDE = ("saycan_n5",)
"""Drawn wider, since the likeliest may lie behind it."""


def reward_by_steps(curve: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Takes ``value_search.curve`` and ``value_search.reckoned``.

    The curve is dashed where some searches have run out of iterations. From an arm that goes by
    values a dotted line leads to where MCTS earns as much.
    """
    figure, (axes,) = panels(1, 1, (7.2, 4.6))
    axes.fill_between(curve["steps"], curve["low"], curve["high"], color=PALE, linewidth=0)
    whole = curve[curve["whole"]]
    rest = curve[curve.index >= len(whole) - 1]
    axes.plot(whole["steps"], whole["reward"], color=DARK, linewidth=1.5, label="MCTS, anytime")
    axes.plot(rest["steps"], rest["reward"], color=DARK, linewidth=1.5, linestyle=(0, (4, 2)))
    for row in table.to_dict("records"):
        colour, marker, filled = STYLES[row["arm"]]
        axes.errorbar(
            row["env_steps"],
            row["reward"],
            yerr=[[row["reward"] - row["reward_low"]], [row["reward_high"] - row["reward"]]],
            color=colour,
            marker=marker,
            markersize=10 if row["arm"] in WIDE else 6.5,
            markerfacecolor=colour if filled else "white",
            linewidth=1.3,
            capsize=3,
            linestyle="none",
            label=row["arm"],
        )
        if row["arm"] in (*BY_VALUES, *ONE_TRIAL) and not pd.isna(row["needed"]):
            axes.plot(
                [row["env_steps"], row["needed"]],
                [row["reward"]] * 2,
                color=colour,
                linewidth=1,
                linestyle=":",
            )
    _steps(axes)
    axes.set_xlim(left=0.7 * max(1.0, table["env_steps"].min()))
    axes.set_ylim(0, 1)
    tasks, chains = table["tasks"].iloc[0], int(table["seeds"].iloc[0])
    label(
        axes,
        f"Reward by steps in the environment; {tasks} tasks, {chains} chain{'s' * (chains != 1)}",
        "steps in the environment, a task (count, logarithmic)",
        "mean terminal reward in [0, 1], 95 % interval",
    )
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    return figure


def _steps(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.4g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="#e5e5e5", linewidth=0.6)
