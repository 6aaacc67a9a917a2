"""Rewards and gains of the arms."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qvlib.agents.arm import CONTROL, NO_Q, OTHER, PART, RERANKED, SCRIPTED, TRIED
from qvlib.agents.arms import BASE, GREEDY
from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, label, panels

STYLES = {  # what an arm is: colour, marker, filled
    RERANKED: (BLUE, "o", True),
    PART: (BLUE, "o", False),
    NO_Q: (GREY, "s", True),
    SCRIPTED: (DARK, "^", True),
    TRIED: (DARK, "D", False),
    OTHER: (DARK, "s", False),
    CONTROL: (ORANGE, "X", True),
}
WIDEST = 4  # times the usual width: an interval as wide would leave the others no room


def reward_by_arm(arms: pd.DataFrame) -> Figure:
    """Mean reward of each arm with its 95 % interval; takes ``numbers.arm_table``."""
    figure, axes, note = _dots(arms, "reward", "reward_low", "reward_high", "{:.3f}")
    base = arms.set_index("arm")["reward"].get(BASE)
    if base is not None:
        axes.axvline(base, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
    axes.set_xlim(left=0)
    label(
        axes,
        "Reward by arm; dotted: one sample",
        f"mean terminal reward in [0, 1], 95 % interval{note}, {arms['tasks'].iloc[0]} tasks",
    )
    return figure


def gains(table: pd.DataFrame) -> Figure:
    """Paired gain of each arm with its 95 % interval; takes ``numbers.gain_table``."""
    figure, axes, note = _dots(table, "gain", "low", "high", "{:+.3f}")
    axes.axvline(0, color=DARK, linewidth=0.9, zorder=0)
    against = "greedy decoding" if table["against"].iloc[0] == GREEDY else "one sample"
    label(
        axes,
        f"Gain over {against}, paired by task",
        f"difference of mean terminal reward, 95 % interval{note}, {table['tasks'].iloc[0]} tasks",
    )
    return figure


def _dots(
    table: pd.DataFrame, value: str, low: str, high: str, form: str
) -> tuple[Figure, Axes, str]:
    """A horizontal dot plot with intervals, first row on top, and a note on those cut off."""
    figure, (axes,) = panels(1, 1, (6.8, 0.32 * len(table) + 1.1))
    named: set[str] = set()
    left, right = _room(table, value, low, high)
    for y, row in zip(range(len(table), 0, -1), table.to_dict("records"), strict=True):
        name = row["kind"]
        colour, marker, filled = STYLES[name]
        axes.errorbar(
            row[value],
            y,
            xerr=[[row[value] - max(row[low], left)], [min(row[high], right) - row[value]]],
            color=colour,
            marker=marker,
            markersize=6.5,
            markerfacecolor=colour if filled else "white",
            linewidth=1.4,
            capsize=3,
            linestyle="none",
            clip_on=False,
            label=None if name in named else name,
        )
        axes.annotate(
            form.format(row[value]),
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
        named.add(name)
        for end, arrow, cut in ((left, "<", row[low] < left), (right, ">", row[high] > right)):
            if cut:
                axes.plot(end, y, arrow, color=colour, markersize=5, clip_on=False)
    axes.set_yticks(range(len(table), 0, -1), table["arm"])
    axes.set_ylim(0.3, len(table) + 0.7)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        [handle[0] for handle in handles],
        labels,
        frameon=False,
        fontsize=8,
        loc="outside lower center",
        ncols=4,
        handletextpad=0.3,
        columnspacing=1.2,
    )
    wider = ((table[low] < left) | (table[high] > right)).any()
    return figure, axes, " (arrow: it is wider)" * bool(wider)


def _room(table: pd.DataFrame, value: str, low: str, high: str) -> tuple[float, float]:
    """From where to where intervals are drawn: all the means, and the intervals of usual width."""
    widths = table[high] - table[low]
    usual = table[~(widths > WIDEST * widths[widths > 0].median())]
    left = min(table[value].min(), usual[low].min())
    right = max(table[value].max(), usual[high].max())
    margin = 0.03 * (right - left)
    return left - margin, right + margin
