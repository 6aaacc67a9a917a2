"""Calibration of compared estimators: what scores say, beside what came, a panel an estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, label, panels

COLUMNS = 4
Bins = Sequence[Mapping[str, Any]]
REWARD, SUCCESS, ORDER = "reward", "success", "order"
WORDS = {  # what scores are meant as -> (x, y, colour, marker)
    REWARD: ("score (reward)", "reward that followed", BLUE, "o"),
    SUCCESS: ("score (probability)", "share of successes", ORANGE, "s"),
    ORDER: ("difference of scores ({})", "difference of values (reward)", DARK, "D"),
}


def calibrations(metrics: Mapping[str, Any]) -> Figure:
    """Score against what came, in bins with 95 % intervals; panels of one unit share their axes.

    Scores that are meant as rewards or probabilities are set against what the agent's own episodes
    earned, with the diagonal on which both agree. Scores that only order the actions of a state
    have no such line, and each its own axis: the difference of two siblings' scores, in favour of
    the one preferred, stands against that of the values a search found. Each panel tells the
    expected calibration error, or the rank correlation within a state. metrics: as after
    ``numbers.write_comparison``.
    """
    entries = metrics["estimators"]
    drawn = sorted(
        ((name, entry, _kind(entry)) for name, entry in entries.items()),
        key=lambda one: list(WORDS).index(one[2]),
    )
    rows = max(1, math.ceil(len(drawn) / COLUMNS))
    figure, axes = panels(rows, COLUMNS, (2.5 * COLUMNS, 2.3 * rows + 0.6))
    room = {kind: _room([_bins(e) for _, e, k in drawn if k == kind]) for kind in WORDS}
    for panel, (name, entry, kind) in zip(axes, drawn, strict=False):
        _panel(panel, name, entry, kind)
        across, up = room[kind]
        if kind == ORDER:
            across, _ = _room([_bins(entry)])
        else:
            both = min(across[0], up[0]), max(across[1], up[1])
            panel.plot(both, both, color=DARK, linewidth=0.8, linestyle="--", zorder=0)
        panel.set_xlim(across)
        panel.set_ylim(up)
    for panel in axes[len(drawn) :]:
        panel.set_visible(False)
    figure.suptitle(
        f"What scores say, and what came: {metrics.get('run', '')}. Means of bins with 95 % "
        "intervals over tasks; an open mark has none.\nDashed: where both agree. Panels of "
        "rewards, and those of probabilities, share both axes; those of differences the y-axis.",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return figure


def _kind(entry: Mapping[str, Any]) -> str:
    return entry["calibration"]["outcome"] if entry["calibration"] else ORDER


def _bins(entry: Mapping[str, Any]) -> Bins:
    return (entry["calibration"] or entry["within_states"] or {}).get("bins", ())


def _room(panels: Sequence[Bins]) -> tuple[tuple[float, float], tuple[float, float]]:
    """What all bins of these panels need, 0 among it: left and right, low and high."""
    rows = [row for bins in panels for row in bins]
    scores = [0.0, *(row["score"] for row in rows)]
    outcomes = [0.0, *(row["outcome"] for row in rows)]
    outcomes += [bound for row in rows for bound in row["ci95"] or ()]
    return _wider(scores), _wider(outcomes, above=0.25)


def _wider(values: Sequence[float], above: float = 0.06) -> tuple[float, float]:
    """The range of values with some room; above: for the text of a panel."""
    wide = max(values) - min(values) or 0.1
    return min(values) - 0.06 * wide, max(values) + above * wide


def _panel(axes: Axes, name: str, entry: Mapping[str, Any], kind: str) -> None:
    x_label, y_label, colour, marker = WORDS[kind]
    rows = _bins(entry)
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.plot(
        [row["score"] for row in rows],
        [row["outcome"] for row in rows],
        color=colour,
        linewidth=0.8,
        alpha=0.5,
    )
    for row in rows:
        low, high = row["ci95"] or (row["outcome"], row["outcome"])
        axes.errorbar(
            row["score"],
            row["outcome"],
            yerr=[[row["outcome"] - low], [high - row["outcome"]]],
            color=colour,
            marker=marker,
            markersize=4.5,
            markerfacecolor=colour if row["ci95"] else "white",
            linewidth=1.0,
            capsize=2,
        )
    label(axes, name, x_label.format(entry["unit"] or "its own unit"), y_label)
    axes.annotate(_told(entry), (0.03, 0.98), xycoords="axes fraction", va="top", fontsize=7)


def _told(entry: Mapping[str, Any]) -> str:
    value, within = entry["calibration"], entry["within_states"]
    if value:
        chance = value["error_by_chance"]
        without = "" if chance is None else f"\n({chance:.3f} by chance)"
        return f"calibration error {value['error']:.3f}{without}"
    if within:
        low, high = within["rank"]["ci95"]
        return f"rank correlation\n{within['rank']['mean']:+.2f} [{low:+.2f}, {high:+.2f}]"
    return "not known: too few"
