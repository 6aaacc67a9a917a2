"""Does Q read? What the method gains, beside all that could explain its gain, on one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, label, panels
from qvlib.report.formats import difference, signed

NULL = "null"
# What a row is: colour, marker, filled
METHOD, PARTS, NO_Q, SCRIPTED, JUDGED, COINS = (
    ("Q", BLUE, "o", True),
    ("Q with a part taken off", BLUE, "o", False),
    ("the agent without Q", GREY, "s", True),
    ("scripted", DARK, "^", True),
    ("tried in the environment first", DARK, "D", False),
    ("Q of shuffled labels, each a dot (gain: their mean)", ORANGE, "o", True),
)
ROWS = (  # arm, as what `against` names it, label, style; first on top
    ("q_n5", "", "Q of 5", METHOD),
    ("foreign_q_n5", "foreign", "Q, foreign instruction", PARTS),
    ("kind_only_n5", "kind_only", "mean Q of the kind", PARTS),
    ("within_kind_n5", "within_kind", "Q within the first kind", PARTS),
    (NULL, NULL, "Q, shuffled labels", COINS),
    ("likely_n5", "likely", "likeliest of 5", NO_Q),
    ("greedy", "greedy", "greedy", NO_Q),
    ("script", "script", "script", SCRIPTED),
    ("demonstrator", "demonstrator", "demonstrator", SCRIPTED),
    ("oracle_n5", "oracle", "oracle of 5", JUDGED),
)
VERDICTS = {True: "yes", False: "not shown"}


def reads(metrics: Mapping[str, Any]) -> Figure:
    """Gain over one sample of Q of five and of its rivals, each shuffle a dot.

    Beside a row stand its gain and what Q earns more, paired by task. Rows that the run did not
    play are left out. metrics: as in ``metrics.json``.
    """
    gains, null = metrics.get("gains") or {}, metrics.get("null") or {}
    rows = [row for row in ROWS if row[0] in gains or (row[0] == NULL and null.get("shuffles"))]
    minus = {
        **((metrics.get("against") or {}).get("q_n5") or {}),
        **({NULL: null["mean"]} if null.get("mean") else {}),
    }
    figure, (axes,) = panels(1, 1, (7.6, 0.34 * len(rows) + 1.5))
    named: set[str] = set()
    for y, (arm, rival, _, style) in zip(range(len(rows), 0, -1), rows, strict=True):
        if arm == NULL:
            _shuffles(axes, y, null["shuffles"], style)
            gain = sum(null["shuffles"]) / len(null["shuffles"])
        else:
            _dot(axes, y, gains[arm], style, style[0] not in named)
            gain = gains[arm]["mean"]
        named.add(style[0])
        entry = minus.get(rival)
        told = difference(entry["mean"], *entry["ci95"]) if entry else ""
        _beside(axes, y, signed(gain), told)
    if rows:
        _beside(axes, len(rows) + 0.95, "gain", "Q of 5 minus it, paired" if minus else "")
    axes.axvline(0, color=DARK, linewidth=0.9, zorder=0)
    if "q_n5" in gains:
        axes.axvline(gains["q_n5"]["mean"], color=BLUE, linewidth=0.9, linestyle=":", zorder=0)
    axes.set_yticks(range(len(rows), 0, -1), [row[2] for row in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    figure.legend(*_handles(axes), frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    label(axes, _title(metrics), _unit(metrics))
    return figure


def _dot(
    axes: Axes, y: float, gain: Mapping[str, Any], style: tuple[str, str, str, bool], first: bool
) -> None:
    name, colour, marker, filled = style
    low, high = gain["ci95"]
    axes.errorbar(
        gain["mean"],
        y,
        xerr=[[gain["mean"] - low], [high - gain["mean"]]],
        color=colour,
        marker=marker,
        markersize=6.5,
        markerfacecolor=colour if filled else "white",
        linewidth=1.4,
        capsize=3,
        linestyle="none",
        clip_on=False,
        label=name if first else None,
    )


def _shuffles(
    axes: Axes, y: float, gains: Sequence[float], style: tuple[str, str, str, bool]
) -> None:
    """Each shuffle a small mark in one row, those side by side at three heights to be seen."""
    name, colour, marker, _ = style
    order = sorted(gains)
    heights = [y + (-0.2, 0.0, 0.2)[i % 3] for i in range(len(order))]
    axes.plot(
        order, heights, color=colour, marker=marker, markersize=3, linestyle="none", label=name
    )


def _beside(axes: Axes, y: float, gain: str, minus: str) -> None:
    """Two columns of text at the right of a row."""
    for x, text in ((1.02, gain), (1.12, minus)):
        axes.annotate(text, (x, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)


def _handles(axes: Axes) -> tuple[list[Any], list[str]]:
    """Marks without intervals for the legend, in the order of the rows."""
    marks = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = [row[3][0] for row in ROWS if row[3][0] in marks]
    order = list(dict.fromkeys(names))
    return [getattr(marks[name], "lines", [marks[name]])[0] for name in order], order


def _title(metrics: Mapping[str, Any]) -> str:
    verdict = VERDICTS.get(metrics.get("reads"), "not tested")
    return (
        f"Does Q read? {metrics.get('run', '')}: {verdict}\n"
        "Q of five samples against what could explain its gain"
    )


def _unit(metrics: Mapping[str, Any]) -> str:
    tasks = ((metrics.get("arms") or {}).get("q_n5") or {}).get("tasks")
    chains = metrics.get("chains") or len(metrics.get("seeds") or [0])
    of = f", {tasks} tasks" if tasks else ""
    return (
        "gain over one sample, terminal reward in [0, 1], 95 % interval"
        f"{of}, {chains} chain{'s' * (chains != 1)}"
    )
