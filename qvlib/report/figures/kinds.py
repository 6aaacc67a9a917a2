"""What Q orders rightly, by the kind of pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, label, panels

WAYS = (  # to score: key, name, colour, marker, filled
    ("own", "Q", BLUE, "o", True),
    ("foreign", "Q under another task's instruction", ORANGE, "X", True),
    ("log_pi", "the agent's own log π", DARK, "D", False),
)
STEP = 0.22
"""How far the markers of a kind are apart, in rows."""


def accuracy_by_kind(found: Mapping[str, Mapping[str, Any]], run: str = "") -> Figure:
    """Share of pairs ordered as the search did, by kind; takes ``numbers.accuracy_by_kind``.

    A way to score that is not known is left out. run: its name, for the title.
    """
    figure, (axes,) = panels(1, 1, (6.8, 0.5 * max(1, len(found)) + 1.5))
    rows = list(zip(range(len(found), 0, -1), found.items(), strict=True))
    for i, (way, name, colour, marker, filled) in enumerate(WAYS):
        known = [(y, told) for y, (_, told) in rows if told[way] is not None]
        if not known:
            continue
        bounds = [told["ci95" if way == "own" else f"{way}_ci95"] for _, told in known]
        shares = [told[way] for _, told in known]
        axes.errorbar(
            shares,
            [y + STEP * (1 - i) for y, _ in known],
            xerr=[
                [share - low for share, (low, _) in zip(shares, bounds, strict=True)],
                [high - share for share, (_, high) in zip(shares, bounds, strict=True)],
            ],
            color=colour,
            marker=marker,
            markersize=6,
            markerfacecolor=colour if filled else "white",
            linewidth=1.3,
            capsize=3,
            linestyle="none",
            label=name,
        )
    axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
    for y, _ in rows[:-1]:
        axes.axhline(y - 0.5, color=GREY, linewidth=0.4, alpha=0.5, zorder=0)
    axes.set_yticks(
        [y for y, _ in rows], [f"{kind} ({told['pairs']:,})" for _, (kind, told) in rows]
    )
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set_xlim(0, 1.02)  # a mark at 1 is seen whole
    if rows:
        axes.legend(
            frameon=False,
            fontsize=8,
            ncols=3,
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            borderaxespad=0,
            handletextpad=0.2,
            columnspacing=1.2,
        )
    label(
        axes,
        f"What Q orders rightly, by kind of pair{f': {run}' * bool(run)}",
        "share of pairs ordered as the search did, 95 % over tasks (0.5: a coin)",
        "kind of pair (count)",
    )
    if rows:
        axes.set_title(axes.get_title(loc="left"), fontsize=10, loc="left", pad=20)
    return figure
