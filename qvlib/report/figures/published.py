"""Reward by the number of candidates, with Q and with what else chooses among them."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from qvlib.report.figures.kit import BLUE, DARK, GREY, LINE, ORANGE, label, panels, spread

TWINS = {  # of ``published.by_candidates`` -> (in words, colour, marker)
    "oracle": ("oracle, tried in the environment", DARK, "D"),
    "foreign": ("Q, foreign instruction", ORANGE, "X"),
    "likely": ("likeliest", GREY, "s"),
}


def candidates(table: pd.DataFrame) -> Figure:
    """Mean reward by the number of candidates; takes ``published.by_candidates``."""
    figure, (axes,) = panels(1, 1, (5.6, 3.3))
    known = table[table["n"] > 1]
    axes.plot(table["n"], table["q"], color=BLUE, linewidth=1.4)
    axes.errorbar(
        known["n"],
        known["q"],
        yerr=spread(known, "q", "q_low", "q_high"),
        **{**LINE, "linestyle": "none"},
        label="Q",
    )
    for twin, (words, colour, marker) in TWINS.items():
        if twin in table:
            axes.plot(
                table["n"], table[twin], color=colour, marker=marker, label=words, linewidth=1.2
            )
    axes.set_xscale("log")
    axes.set_xticks(table["n"], [str(n) for n in table["n"]])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    label(
        axes,
        "Reward by number of candidates; 1 is one sample",
        "candidates a step (count)",
        "mean terminal reward, Q with 95 %",
    )
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    return figure
