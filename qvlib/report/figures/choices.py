"""What rewards depend on: numbers of candidates, scoring rules, cells of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from qvlib.report.figures.kit import BLUE, DARK, GREY, LINE, ORANGE, label, panels, spread

LABEL = 64  # characters of a line of a cell's name


def lines(
    table: pd.DataFrame,
    x: str,
    y: str,
    title: str,
    x_label: str,
    y_label: str,
    low: str,
    high: str,
) -> Figure:
    """One line with intervals."""
    figure, (axes,) = panels(1, 1, (4.8, 2.9))
    axes.errorbar(table[x], table[y], yerr=spread(table, y, low, high), **LINE)
    axes.set_xticks(table[x])
    label(axes, title, x_label, y_label)
    return figure


def rule_gains(table: pd.DataFrame) -> Figure:
    """Gain of each scoring rule beside its control's and its twin's.

    Takes ``ablations.rule_table``.
    """
    series = (
        ("q", "with Q", BLUE, "o", -0.22),
        ("control", "control, shuffled labels", ORANGE, "X", 0.0),
        ("twin", "no Q", GREY, "s", 0.22),
    )
    figure, (axes,) = panels(1, 1, (6.8, 0.5 * len(table) + 1.1))
    for scorer, name, colour, marker, shift in series:
        axes.errorbar(
            table[f"{scorer}_gain"],
            np.arange(len(table)) + shift,
            xerr=spread(table, f"{scorer}_gain", f"{scorer}_low", f"{scorer}_high"),
            color=colour,
            marker=marker,
            markersize=6,
            linewidth=1.4,
            capsize=3,
            linestyle="none",
            label=name,
        )
    axes.set_yticks(range(len(table)), [name.replace("_", " ") for name in table["rule"]])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.axvline(0, color=DARK, linewidth=0.9, zorder=0)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    label(
        axes,
        f"Scoring rules, n = {table['candidates'].iloc[0]}: gain over one sample",
        f"difference of mean terminal reward, 95 % interval, {table['tasks'].iloc[0]} dev tasks",
    )
    return figure


def grid_changes(table: pd.DataFrame) -> Figure:
    """Change of each cell of a grid against the run's own, by axis; takes ``grids.table``."""
    rows = table.iloc[1:]
    rows = rows[rows["change"].notna()]
    names = [
        fill(f"{axis}: {choice}", LABEL)
        for axis, choice in zip(rows["axis"], rows["choice"], strict=True)
    ]
    heights = np.array([max(1, (name.count("\n") + 1) / 2) for name in names])  # two lines fit
    ends = heights.cumsum()
    y = ends - heights / 2
    figure, (axes,) = panels(1, 1, (8.2, 0.25 * heights.sum() + 1.1))
    tasks = f", {int(rows['tasks'].max())} dev tasks" if len(rows) else ""
    axes.errorbar(
        rows["change"],
        y,
        xerr=spread(rows, "change", "change_low", "change_high"),
        color=BLUE,
        marker="o",
        markersize=5,
        linewidth=1.3,
        capsize=2.5,
        linestyle="none",
    )
    for i, (before, after) in enumerate(zip(rows["axis"], rows["axis"].iloc[1:], strict=False)):
        if before != after:
            axes.axhline(ends[i], color="#d5d5d5", linewidth=0.7)
    axes.set_yticks(y, names, fontsize=7)
    axes.set_ylim(heights.sum() + 0.1, -0.1)
    axes.axvline(0, color=DARK, linewidth=0.9, zorder=1.8)  # above the grid
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    label(
        axes,
        "One choice changed: reward against the run's own",
        f"paired difference of mean terminal reward, 95 % interval{tasks}",
    )
    return figure


def grid_curves(table: pd.DataFrame, axes_of: Mapping[str, tuple[str, str]]) -> Figure:
    """Gain over one sample along the numeric axes of a grid; takes ``grids.table``.

    axes_of: ``axis -> (column, label)``.
    """
    figure, axes = panels(1, len(axes_of), (3.1 * len(axes_of) + 0.6, 2.9))
    low, high = 0.0, 0.0  # of what is drawn: an empty panel's own limits would hide the curves
    for panel, (axis, (column, name)) in zip(axes, axes_of.items(), strict=True):
        rows = table[
            ((table["axis"] == axis) | (table["axis"] == "the run")) & (table["failed"] == "")
        ].drop_duplicates(column)
        rows = rows.sort_values(column)
        panel.axhline(0, color=DARK, linewidth=0.8)
        unit = "gain over one sample,\nterminal reward, 95 % interval" if panel is axes[0] else ""
        label(panel, f"Gain by {axis}", name, unit)
        if rows.empty:
            continue
        panel.errorbar(
            rows[column], rows["gain"], yerr=spread(rows, "gain", "gain_low", "gain_high"), **LINE
        )
        low, high = min(low, rows["gain_low"].min()), max(high, rows["gain_high"].max())
        panel.set_xscale("log")
        panel.set_xticks(rows[column], [f"{v:g}" for v in rows[column]])
        panel.minorticks_off()
    room = 0.05 * (high - low) or 0.02
    for panel in axes:
        panel.set_ylim(low - room, high + room)
    return figure
