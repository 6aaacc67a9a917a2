"""Pictures of one example: a search, iteration by iteration; the loss of one pair."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from qvlib.report.figures.kit import BLUE, DARK, GREY, ORANGE, label, panels


def root_value(iterations: pd.DataFrame) -> Figure:
    """How the root's value moves, with what each iteration found; takes ``one_search.again``'s."""
    figure, (axes,) = panels(1, 1, (6.4, 2.8))
    number = iterations["iteration"]
    axes.plot(
        number, iterations["value"], "o", color=GREY, markersize=4, label="value of the iteration"
    )
    axes.plot(number, iterations["root V"], color=BLUE, linewidth=1.6, label="value of the root")
    axes.axhline(0, color=DARK, linewidth=0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8)
    label(axes, "One search", "iteration (count)", "value in [-1, 1]")
    return figure


def pair_loss(betas: Mapping[str, float], difference: float) -> Figure:
    """The DPO loss by the difference of two Q values, for some betas, with one pair's difference.

    betas: what to call each -> beta. difference: Q(chosen) - Q(rejected) of the pair, nats.
    """
    figure, (axes,) = panels(1, 1, (6.4, 2.8))
    widest = max(2 * abs(difference), 20.0)
    x = np.linspace(-widest, widest, 201)
    for (name, beta), colour, dashes in zip(
        betas.items(), (BLUE, ORANGE, DARK), ("-", "--", ":"), strict=False
    ):
        axes.plot(x, np.logaddexp(0, -beta * x), dashes, color=colour, label=name)
        axes.plot([difference], [np.logaddexp(0, -beta * difference)], "o", color=colour)
    axes.axhline(math.log(2), color=GREY, linewidth=0.9, linestyle=":")
    axes.axvline(0, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    label(axes, "Loss of one pair", "Q(chosen) - Q(rejected) (nats)", "loss (nats)")
    return figure
