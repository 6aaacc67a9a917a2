"""What a difference between two methods is made of, under each condition."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, label, panels, spread
from qvlib.report.regression import PARTS, WHOLE

STYLES = {
    WHOLE: (DARK, "D"),
    **dict(zip(PARTS, ((BLUE, "o"), (ORANGE, "s"), (GREY, "X")), strict=True)),
}


def effects(table: pd.DataFrame) -> Figure:
    """Each effect with its 95 % interval, by condition; takes ``regression.effects``."""
    names = list(dict.fromkeys(table["condition"]))
    figure, (axes,) = panels(1, 1, (6.8, 0.75 * len(names) + 1.3))
    for i, (effect, (colour, marker)) in enumerate(STYLES.items()):
        rows = table[table["effect"] == effect]
        y = np.array([names.index(name) for name in rows["condition"]]) + 0.18 * (i - 1.5)
        axes.errorbar(
            rows["mean"],
            y,
            xerr=spread(rows, "mean", "mean_low", "mean_high"),
            color=colour,
            marker=marker,
            markersize=5.5,
            linewidth=1.3,
            capsize=2.5,
            linestyle="none",
            label=effect,
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.axvline(0, color=DARK, linewidth=0.9, zorder=0)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    label(
        axes,
        "The difference and its three parts",
        "difference of mean terminal reward, paired, 95 % interval",
    )
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    return figure
