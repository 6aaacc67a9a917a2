"""Estimators side by side: their gains, what could explain them, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from qvlib.agents.arm import CONTROL, OTHER, PART
from qvlib.agents.arms import ARMS, BASE
from qvlib.agents.asked import models_asked
from qvlib.report.figures.arms import STYLES
from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, label, panels
from qvlib.report.figures.placing import place_labels
from qvlib.report.formats import difference, signed

SERIES = (  # arm, name, colour, marker, filled, size, place in its row; first on top
    ("", "the estimator", BLUE, "o", True, 7, 0.27),
    ("foreign_q_n5", "told another task's instruction", BLUE, "o", False, 6, 0.09),
    ("control_q_n5", "its controls, labels dealt anew", ORANGE, "X", True, 6.5, -0.09),
    ("likely_n5", "the likeliest of the same 5", GREY, "s", True, 5, -0.27),
)
LINES = ("script", "demonstrator")
"""Arms of the run that stand as lines across all rows."""
SECOND, ORACLE = "other_agent", "oracle"
METHOD = "step_dpo"
"""The estimator of runs that do not tell theirs."""
RERANKED_BY = "an estimator, number as listed"
ESTIMATOR = (BLUE, "*", True)
UNNAMED = (PART, CONTROL)
"""Kinds of arms that the legend names and no label."""


def ranking(metrics: Mapping[str, Any]) -> Figure:
    """Gain over one sample of each estimator, the highest on top, and of what could explain it.

    The thick part of an interval is over tasks alone, the whole over chains and tasks. Beside a row
    stand its gain, and its reward less that of the published form, paired. metrics: as in
    ``metrics.json`` after ``numbers.write_comparison``.
    """
    entries = metrics["estimators"]
    names = _ranked(entries)
    figure, (axes,) = panels(1, 1, (8.2, 0.52 * max(1, len(names)) + 1.9))
    for y, name in zip(range(len(names), 0, -1), names, strict=True):
        entry = entries[name]
        for arm, words, *style in SERIES:
            gain = entry["gains"].get(arm) if arm else entry["gain"]
            if gain:
                _dot(axes, y, gain, words if y == len(names) else None, style)
        less = entry.get("minus_published")
        _beside(
            axes,
            y,
            signed(entry["gain"]["mean"]),
            difference(less["mean"], *less["ci95"]) if less else "",
        )
        if y > 1:
            axes.axhline(y - 0.5, color=GREY, linewidth=0.4, alpha=0.5, zorder=0)
    versus = any(entry.get("minus_published") for entry in entries.values())
    _beside(axes, len(names) + 0.75, "gain", "less published, paired" if versus else "")
    _across(axes, metrics.get("gains") or {}, len(names))
    axes.axvline(0, color=DARK, linewidth=0.9, zorder=0)
    best = metrics.get("best")
    axes.set_yticks(
        range(len(names), 0, -1),
        [f"{name}\n(best on dev)" if name == best else name for name in names],
    )
    axes.set_ylim(0.45, len(names) + 0.55)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        [handle[0] for handle in handles],
        labels,
        frameon=False,
        fontsize=8,
        loc="outside lower center",
        ncols=2,
    )
    label(
        axes,
        f"Estimators compared: {metrics.get('run', '')}\n",
        "gain over one sample, terminal reward in [0, 1]; 95 % intervals,\n"
        f"thick: over tasks, whole: over chains too; {_of(metrics)}",
    )
    return figure


def _ranked(entries: Mapping[str, Any]) -> list[str]:
    return sorted(entries, key=lambda name: -entries[name]["gain"]["mean"])


def _dot(
    axes: Axes, y: float, gain: Mapping[str, Any], words: str | None, style: Sequence[Any]
) -> None:
    colour, marker, filled, size, shift = style
    mean, (low, high) = gain["mean"], gain["ci95"]
    axes.errorbar(
        mean,
        y + shift,
        xerr=[[mean - low], [high - mean]],
        color=colour,
        marker=marker,
        markersize=size,
        markerfacecolor=colour if filled else "white",
        linewidth=1.2,
        capsize=2.5,
        linestyle="none",
        label=words,
    )
    if "ci95_tasks" in gain:
        axes.plot(gain["ci95_tasks"], [y + shift] * 2, color=colour, linewidth=3.2, alpha=0.55)


def _beside(axes: Axes, y: float, gain: str, less: str) -> None:
    """Two columns of text at the right of a row."""
    for x, text in ((1.02, gain), (1.11, less)):
        axes.annotate(text, (x, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)


def _across(axes: Axes, gains: Mapping[str, Any], rows: int) -> None:
    """What is the same for all estimators, as lines with their names on top."""
    for arm, dashes, above in zip(LINES, (":", "--"), (2, 12.5), strict=True):
        if arm in gains:
            axes.axvline(gains[arm]["mean"], color=DARK, linewidth=1.0, linestyle=dashes, zorder=0)
            axes.annotate(
                arm,
                (gains[arm]["mean"], rows + 0.55),
                xytext=(0, above),
                textcoords="offset points",
                ha="right",
                fontsize=7.5,
            )


def _of(metrics: Mapping[str, Any]) -> str:
    tasks = ((metrics.get("arms") or {}).get("sample") or {}).get("tasks")
    chains = metrics.get("chains") or len(metrics.get("seeds") or [0])
    return f"{tasks} tasks, {chains} chain{'s' * (chains != 1)}"


def gain_by_cost(metrics: Mapping[str, Any]) -> Figure:
    """Gain over one sample against what an episode costs, of every arm and every estimator.

    Above the tokens that the agent reads and writes with what Q reads at most, below the steps in
    the environment, a task, on logarithmic axes. Estimators have the numbers of the list beside
    them, in the order of their gains. Arms of a second agent are left out: their gain is over its
    own sample.
    """
    entries, names = metrics["estimators"], _ranked(metrics["estimators"])
    figure, axes = panels(2, 1, (9.6, 9.6))
    costs = (
        ("tokens", "tokens of the agent, and what Q reads at most, a task (count, logarithmic)"),
        ("env_steps", "steps in the environment, a task (count, logarithmic); no oracles"),
    )
    for panel, (cost, words) in zip(axes, costs, strict=True):
        points = [*_estimators(entries, names, cost), *_arms(metrics, cost)]
        for point in points:
            colour, marker, filled = STYLES.get(point.kind, ESTIMATOR)
            panel.plot(
                point.cost,
                point.gain,
                marker,
                color=colour,
                markersize=9 if point.kind == RERANKED_BY else 5.5,
                markerfacecolor=colour if filled else "white",
                markeredgewidth=0.8,
                label=point.kind,
            )
        panel.margins(x=0.07)
        panel.axhline(0, color=DARK, linewidth=0.8, zorder=0)
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.4g}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(color="#e5e5e5", linewidth=0.6)
        label(panel, "", words, "gain over one sample, terminal reward in [0, 1]")
    axes[0].set_title(
        f"Gain against cost: {metrics.get('run', '')}, {_of(metrics)}", fontsize=10, loc="left"
    )
    key = "\n".join(f"{i}  {name}" for i, name in enumerate(names, start=1))
    axes[0].annotate(key, (1.01, 1.0), xycoords="axes fraction", va="top", fontsize=8)
    marks = dict(zip(*reversed(axes[1].get_legend_handles_labels()), strict=True))
    figure.legend(
        marks.values(),
        marks.keys(),
        frameon=False,
        fontsize=8,
        loc="outside lower center",
        ncols=4,
    )
    for panel, (cost, _) in zip(axes, costs, strict=True):
        told = [*_estimators(entries, names, cost), *_arms(metrics, cost)]
        place_labels(panel, [(point.cost, point.gain, point.text) for point in told])
    return figure


@dataclass(frozen=True)
class Point:
    """One way to play: what it costs and gains; text: its label, or ""."""

    cost: float
    gain: float
    text: str
    kind: str


def _arms(metrics: Mapping[str, Any], cost: str) -> list[Point]:
    """The arms of the run, less those that no model plays where tokens are counted.

    Where steps are, less oracles: what they try at each step is not counted.
    """
    kinds = {arm.name: arm.kind for arm in ARMS}
    asked = {arm.name: models_asked(metrics.get("estimator") or METHOD, arm) for arm in ARMS}
    gains = {BASE: {"mean": 0.0}, **(metrics.get("gains") or {})}
    points = []
    for arm, row in (metrics.get("arms") or {}).items():
        spent, kind = _spent(row, cost, asked.get(arm, 0)), kinds.get(arm, OTHER)
        if cost == "env_steps" and arm.startswith(ORACLE):
            continue
        if arm in gains and spent > 0 and not arm.startswith(SECOND):
            text = "" if kind in UNNAMED else arm
            points.append(Point(spent, gains[arm]["mean"], text, kind))
    return points


def _estimators(entries: Mapping[str, Any], names: Sequence[str], cost: str) -> list[Point]:
    return [
        Point(_spent(entry["cost"], cost), entry["gain"]["mean"], f"{i}", RERANKED_BY)
        for i, entry in enumerate((entries[name] for name in names), start=1)
    ]


def _spent(row: Mapping[str, float], cost: str, asked: int = 0) -> float:
    """asked: models that value the candidates, where the row does not tell what they read."""
    if cost == "env_steps":
        return row["env_steps"]
    own = row["tokens"] + row["prompt_tokens"]
    return own + row.get("q_tokens_at_most", asked * own)
