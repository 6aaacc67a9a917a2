"""The report's pictures, from tables to matplotlib figures. Told apart by shape and shade, not by colour alone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from qvlib.base.files import write_atomic
from qvlib.base.paths import resolve
from qvlib.pipeline.params import Params

DPI = 120
BLUE, ORANGE, GREY, DARK = "#0072B2", "#D55E00", "#8a8a8a", "#222222"
KINDS = {  # what an arm is: colour, marker, filled
    "Q-reranked": (BLUE, "o", True),
    "no Q": (GREY, "s", True),
    "control, shuffled winners": (ORANGE, "X", True),
    "other use": (DARK, "D", False),
}


def save(figure: Figure, params: Params, name: str) -> Path:
    """Write ``results/<name>/figures/<name>.png``; returns its path."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return write_atomic(
        resolve(params.results_dir) / params.name / "figures" / f"{name}.png", buffer.getvalue()
    )


def kind(arm: str) -> str:
    """What an arm is, for its marker."""
    if arm.startswith("control"):
        return "control, shuffled winners"
    if "q_n" in arm:
        return "Q-reranked"
    return "other use" if arm in ("mcts", "best_of_n", "tuned_policy") else "no Q"


def reward_by_arm(arms: pd.DataFrame) -> Figure:
    """Mean reward of each arm with its 95 % interval; takes ``report.arm_table``."""
    figure, axes = _dots(arms, "reward", "reward_low", "reward_high")
    base = arms.set_index("arm")["reward"].get("sample")
    if base is not None:
        axes.axvline(base, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
    axes.set_xlim(left=0)
    return _labelled(
        figure,
        axes,
        "Reward by arm",
        f"mean terminal reward in [0, 1], 95 % interval, {arms['tasks'].iloc[0]} tasks",
    )


def gains(table: pd.DataFrame) -> Figure:
    """Paired gain of each arm with its 95 % interval; takes ``report.gain_table``."""
    figure, axes = _dots(table, "gain", "low", "high")
    axes.axvline(0, color=DARK, linewidth=0.9, zorder=0)
    against = (
        "greedy decoding"
        if table["against"].iloc[0] == "greedy"
        else "one sample of the same agent"
    )
    return _labelled(
        figure,
        axes,
        f"Gain over {against}, paired by task",
        f"difference of mean terminal reward, 95 % interval, {table['tasks'].iloc[0]} tasks",
    )


def pairs_by_depth(pairs: pd.DataFrame) -> Figure:
    """Where preference pairs come from; takes ``pairs.parquet`` (``path``, two values, two visits)."""
    depth = pairs["path"].map(len)
    margin = pairs["chosen_value"] - pairs["rejected_value"]
    figure, (left, right) = _panels(1, 2, (7.2, 2.9))
    counts = depth.value_counts().sort_index()
    bars = left.bar(counts.index, counts, color="#c6d9e8", edgecolor=DARK, linewidth=0.8)
    left.bar_label(bars, fontsize=8)
    _set(left, "Pairs by depth", "actions before the two part (count)", "pairs (count)")
    left.margins(y=0.15)
    left.set_xticks(_ticks(counts.index))
    _boxes(right, [margin[depth == d] for d in counts.index], counts.index)
    _set(
        right,
        "How far apart their values are",
        "actions before the two part (count)",
        "value of chosen - rejected",
    )
    right.set_ylim(bottom=0)
    return figure


def nodes_by_depth(nodes: pd.DataFrame) -> Figure:
    """Values and visits of visited tree nodes by depth; takes ``trees.parquet``."""
    nodes = nodes[nodes["visits"] > 0]
    depths = sorted(nodes["depth"].unique())
    figure, (left, right) = _panels(1, 2, (7.2, 2.9))
    _boxes(left, [nodes.loc[nodes["depth"] == d, "value"] for d in depths], depths)
    _set(
        left,
        "Value of visited nodes",
        "depth in the tree (actions)",
        "mean backed-up value in [-1, 1]",
    )
    _boxes(right, [nodes.loc[nodes["depth"] == d, "visits"] for d in depths], depths)
    right.set_yscale("log")
    _set(
        right, "Visits of visited nodes", "depth in the tree (actions)", "visits (count, log scale)"
    )
    return figure


def cloning(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Behaviour cloning: smoothed action loss of each agent."""
    figure, (axes,) = _panels(1, 1, (5.6, 2.9))
    for (name, curve), colour, dashes in zip(curves.items(), (BLUE, DARK), ("-", "--")):
        axes.plot(curve["step"], curve["action_loss"], color=colour, alpha=0.2, linewidth=0.8)
        axes.plot(curve["step"], _smooth(curve["action_loss"]), dashes, color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    _set(axes, "Behaviour cloning", "batch (count)", "loss on action tokens (nats a token)")
    return figure


def training(curve: pd.DataFrame, control: pd.DataFrame | None = None) -> Figure:
    """Loss, margin, accuracy and both log-probabilities of DPO, training and held-out pairs."""
    figure, axes = _panels(2, 2, (7.2, 5.0))
    drawn = [("Q model", curve, BLUE, "-", "o")] + (
        [] if control is None else [("control", control, ORANGE, "--", "X")]
    )
    for place, column, title, unit in (
        (axes[0], "loss", "Loss", "nats"),
        (axes[1], "margin", "Margin", "beta × difference of Q (nats)"),
        (axes[2], "accuracy", "Accuracy", "share of pairs ordered rightly"),
    ):
        for name, rows, colour, dashes, marker in drawn:
            _curve(place, rows, column, name, colour, dashes, marker)
        _set(place, title, "batch (count)", unit)
    axes[0].axhline(math.log(2), color=GREY, linewidth=0.9, linestyle=":")
    axes[0].annotate(
        "ln 2",
        (0.02, math.log(2)),
        xycoords=("axes fraction", "data"),
        ha="left",
        va="top",
        fontsize=8,
        color=GREY,
    )
    axes[1].axhline(0, color=GREY, linewidth=0.9, linestyle=":")
    axes[2].axhline(0.5, color=GREY, linewidth=0.9, linestyle=":")
    axes[2].set_ylim(0, 1.03)
    _curve(axes[3], curve, "log_prob_chosen", "chosen", BLUE, "-", "o")
    _curve(axes[3], curve, "log_prob_rejected", "rejected", DARK, "--", "v")
    _set(axes[3], "Log-probability under the policy", "batch (count)", "nats an action")
    axes[0].legend(frameon=False, fontsize=7)
    axes[3].legend(frameon=False, fontsize=7)
    return figure


def calibration(siblings: pd.DataFrame, bins: int = 8) -> Figure:
    """Q against the MCTS value of sibling actions, both less their state's mean (``siblings.score``)."""
    figure, (axes,) = _panels(1, 1, (5.2, 3.4))
    value, q = siblings["value_centred"], siblings["q_centred"]
    axes.scatter(value, q, s=7, color=GREY, alpha=0.35, linewidths=0, label="an action")
    if value.nunique() > bins:
        cut = pd.qcut(value, bins, duplicates="drop")
        grouped = siblings.groupby(cut, observed=True)
        mean, error = grouped["q_centred"].mean(), 1.96 * grouped["q_centred"].sem()
        axes.errorbar(
            grouped["value_centred"].mean(),
            mean,
            yerr=error,
            color=BLUE,
            marker="o",
            markersize=5,
            linewidth=1.4,
            capsize=3,
            label="mean of a bin, 95 %",
        )
        axes.legend(frameon=False, fontsize=8)
    axes.axhline(0, color=DARK, linewidth=0.6)
    axes.axvline(0, color=DARK, linewidth=0.6)
    _set(
        axes,
        "Q against search, within a state",
        "MCTS value less the siblings' mean",
        "Q less the siblings' mean (nats)",
    )
    return figure


def lines(
    table: pd.DataFrame,
    x: str,
    y: str,
    title: str,
    x_label: str,
    y_label: str,
    low: str | None = None,
    high: str | None = None,
) -> Figure:
    """One line with intervals."""
    figure, (axes,) = _panels(1, 1, (4.8, 2.9))
    error = None if low is None else [table[y] - table[low], table[high] - table[y]]
    axes.errorbar(
        table[x],
        table[y],
        yerr=error,
        color=BLUE,
        marker="o",
        markersize=5,
        linewidth=1.4,
        capsize=3,
    )
    axes.set_xticks(table[x])
    _set(axes, title, x_label, y_label)
    return figure


def rule_gains(table: pd.DataFrame) -> Figure:
    """Gain of each scoring rule beside its control's and its twin's; takes ``ablations.rule_table``."""
    series = (
        ("q", "with Q", BLUE, "o", -0.22),
        ("control", "control, shuffled winners", ORANGE, "X", 0.0),
        ("twin", "no Q", GREY, "s", 0.22),
    )
    figure, (axes,) = _panels(1, 1, (6.8, 0.5 * len(table) + 1.1))
    for what, name, colour, marker, shift in series:
        gain, low, high = (table[f"{what}_{part}"] for part in ("gain", "low", "high"))
        axes.errorbar(
            gain,
            np.arange(len(table)) + shift,
            xerr=[gain - low, high - gain],
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
    return _labelled(
        figure,
        axes,
        f"Scoring rules, n = {table['candidates'].iloc[0]}: gain over one sample",
        f"difference of mean terminal reward, 95 % interval, {table['tasks'].iloc[0]} dev tasks",
    )


def grid_changes(table: pd.DataFrame) -> Figure:
    """Change of each cell of a grid against the run's own, by axis; takes ``grid.table``."""
    rows = table.iloc[1:]
    rows = rows[rows["change"].notna()]
    figure, (axes,) = _panels(1, 1, (6.8, 0.25 * len(rows) + 1.1))
    tasks = f", {int(rows['tasks'].max())} dev tasks" if len(rows) else ""
    y = np.arange(len(rows))
    axes.errorbar(
        rows["change"],
        y,
        xerr=[rows["change"] - rows["change_low"], rows["change_high"] - rows["change"]],
        color=BLUE,
        marker="o",
        markersize=5,
        linewidth=1.3,
        capsize=2.5,
        linestyle="none",
    )
    for i, (before, after) in enumerate(zip(rows["axis"], rows["axis"].iloc[1:], strict=False)):
        if before != after:
            axes.axhline(i + 0.5, color="#d5d5d5", linewidth=0.7)
    axes.set_yticks(
        y,
        [f"{axis}: {choice}" for axis, choice in zip(rows["axis"], rows["choice"], strict=True)],
        fontsize=7,
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(0, color=DARK, linewidth=0.9, zorder=0)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    return _labelled(
        figure,
        axes,
        "One choice changed: reward against the run's own",
        f"paired difference of mean terminal reward, 95 % interval{tasks}",
    )


def grid_curves(table: pd.DataFrame, axes_of: Mapping[str, tuple[str, str]]) -> Figure:
    """Gain over one sample along the numeric axes of a grid: ``axis -> (column, label)``; takes ``grid.table``."""
    figure, panels = _panels(1, len(axes_of), (3.1 * len(axes_of) + 0.6, 2.9))
    for place, (axis, (column, label)) in zip(panels, axes_of.items(), strict=True):
        rows = table[
            ((table["axis"] == axis) | (table["axis"] == "the run")) & (table["failed"] == "")
        ].drop_duplicates(column)
        rows = rows.sort_values(column)
        place.errorbar(
            rows[column],
            rows["gain"],
            yerr=[rows["gain"] - rows["gain_low"], rows["gain_high"] - rows["gain"]],
            color=BLUE,
            marker="o",
            markersize=5,
            linewidth=1.4,
            capsize=3,
        )
        place.axhline(0, color=DARK, linewidth=0.8)
        place.set_xscale("log")
        place.set_xticks(rows[column], [f"{v:g}" for v in rows[column]])
        place.minorticks_off()
        _set(
            place,
            f"Gain by {axis}",
            label,
            "gain over one sample, 95 %" if place is panels[0] else "",
        )
        place.set_ylim(
            min(-0.02, *(p.get_ylim()[0] for p in panels)), max(p.get_ylim()[1] for p in panels)
        )
    top = max(p.get_ylim()[1] for p in panels)
    for place in panels:
        place.set_ylim(min(p.get_ylim()[0] for p in panels), top)
    return figure


def _dots(table: pd.DataFrame, value: str, low: str, high: str) -> tuple[Figure, object]:
    """A horizontal dot plot with intervals, first row on top."""
    figure, (axes,) = _panels(1, 1, (6.8, 0.32 * len(table) + 1.1))
    seen: set[str] = set()
    for y, row in zip(range(len(table), 0, -1), table.to_dict("records"), strict=True):
        name = kind(row["arm"])
        colour, marker, filled = KINDS[name]
        axes.errorbar(
            row[value],
            y,
            xerr=[[row[value] - row[low]], [row[high] - row[value]]],
            color=colour,
            marker=marker,
            markersize=6.5,
            markerfacecolor=colour if filled else "white",
            linewidth=1.4,
            capsize=3,
            linestyle="none",
            clip_on=False,
            label=None if name in seen else name,
        )
        axes.annotate(
            f"{row[value]:.3f}" if value == "reward" else f"{row[value]:+.3f}",
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
        seen.add(name)
    axes.set_yticks(range(len(table), 0, -1), table["arm"])
    axes.set_ylim(0.3, len(table) + 0.7)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        [h[0] for h in handles],
        labels,
        frameon=False,
        fontsize=8,
        loc="outside lower center",
        ncols=4,
        handletextpad=0.3,
        columnspacing=1.2,
    )
    return figure, axes


def _labelled(figure: Figure, axes, title: str, x_label: str) -> Figure:
    _set(axes, title, x_label, "")
    return figure


def _panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list]:
    figure = Figure(figsize=size, layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns)))
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
        one.set_axisbelow(True)
    return figure, axes


def _set(axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)


def _boxes(axes, groups: list, positions) -> None:
    """Boxes of quartiles with whiskers to the 5th and 95th percentile; the mean is a diamond."""
    axes.boxplot(
        [list(g) for g in groups],
        positions=list(positions),
        widths=0.6,
        whis=(5, 95),
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": "#c6d9e8", "linewidth": 0.8},
        medianprops={"color": DARK},
        meanprops={
            "marker": "D",
            "markersize": 4,
            "markerfacecolor": "white",
            "markeredgecolor": DARK,
        },
    )
    axes.set_xticks(_ticks(positions))


def _ticks(positions) -> list:
    """All positions, or every so many of them where they are too many to label."""
    return list(positions)[:: 1 + (len(positions) - 1) // 14]


def _curve(
    axes, rows: pd.DataFrame, column: str, name: str, colour: str, dashes: str, marker: str
) -> None:
    train, held = rows[rows["split"] == "train"], rows[rows["split"] == "held-out"]
    axes.plot(
        train["step"],
        _smooth(train[column]),
        dashes,
        color=colour,
        linewidth=1.3,
        label=f"{name}, training",
    )
    axes.plot(train["step"], train[column], color=colour, alpha=0.18, linewidth=0.8)
    if len(held):
        axes.plot(
            held["step"],
            held[column],
            marker,
            color=colour,
            markersize=6,
            markerfacecolor="white",
            markeredgewidth=1.4,
            label=f"{name}, held out",
            linestyle="none",
        )


def _smooth(values: pd.Series) -> pd.Series:
    return values.rolling(max(1, len(values) // 15), min_periods=1).mean()
