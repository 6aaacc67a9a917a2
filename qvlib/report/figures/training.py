"""How the agent and the Q model learnt, and what of the search's values Q holds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qvlib.report.figures.kit import BLUE, DARK, GREY, LINE, ORANGE, label, panels, smooth
from qvlib.report.formats import with_unit

BINS = 8  # of equally many sibling actions
KINDS = (
    (BLUE, "o"),
    (ORANGE, "^"),
    ("#009E73", "s"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
)
"""Colour and marker of each kind of action, the commonest first."""
OF_DPO = {"loss", "margin", "accuracy", "log_prob_chosen", "log_prob_rejected"}


def cloning(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Behaviour cloning: smoothed action loss of each agent, two at most."""
    figure, (axes,) = panels(1, 1, (5.6, 2.9))
    styles = ((BLUE, "-"), (DARK, "--"))
    for (name, curve), (colour, dashes) in zip(curves.items(), styles, strict=False):
        axes.plot(curve["step"], curve["action_loss"], color=colour, alpha=0.2, linewidth=0.8)
        axes.plot(curve["step"], smooth(curve["action_loss"]), dashes, color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    label(axes, "Behaviour cloning", "batch (count)", "loss on action tokens (nats a token)")
    return figure


def training(curve: pd.DataFrame, control: pd.DataFrame) -> Figure:
    """Loss, margin, accuracy and both log-probabilities of DPO, training and held-out pairs.

    Of an estimator that tells others: each number of its curve, four at most.
    """
    if not set(curve) >= OF_DPO:
        return _of_another(curve, control)
    figure, axes = panels(2, 2, (7.2, 5.0))
    drawn = (("Q model", curve, BLUE, "-", "o"), ("control", control, ORANGE, "--", "X"))
    for panel, column, title, unit in (
        (axes[0], "loss", "Loss", "nats"),
        (axes[1], "margin", "Margin", "beta × difference of Q (nats)"),
        (axes[2], "accuracy", "Accuracy", "share of pairs ordered rightly"),
    ):
        for name, rows, colour, dashes, marker in drawn:
            _curve(panel, rows, column, name, colour, dashes, marker)
        label(panel, title, "batch (count)", unit)
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
    label(axes[3], "Log-probability under the policy", "batch (count)", "nats an action")
    axes[0].legend(frameon=False, fontsize=7)
    axes[3].legend(frameon=False, fontsize=7)
    return figure


NO_PANEL = ("step", "epoch", "pairs")
"""Columns of a curve that count what it is told of."""


def _of_another(curve: pd.DataFrame, control: pd.DataFrame) -> Figure:
    """The numbers of a curve, a panel each; an estimator that is not trained has none.

    Rows are told apart by ``split`` where a curve has that, and stand at their ``step``, else in
    order.
    """
    told = [name for name in curve.select_dtypes("number") if name not in NO_PANEL][:4]
    figure, axes = panels(1, max(1, len(told)), (7.2, 2.6))
    drawn = (("Q model", curve, BLUE, "-", "o"), ("control", control, ORANGE, "--", "X"))
    for panel, column in zip(axes, told, strict=False):
        for name, rows, colour, dashes, marker in drawn:
            if column in rows:
                placed = rows.assign(
                    step=rows["step"] if "step" in rows else range(len(rows)),
                    split=rows["split"] if "split" in rows else "train",
                )
                _curve(panel, placed, column, name, colour, dashes, marker)
        unit = {"accuracy": "share ordered rightly", "loss": "loss (in its own unit)"}
        label(panel, column.replace("_", " "), "batch (count)", unit.get(column, ""))
    if told:
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, names, frameon=False, fontsize=8, loc="outside lower center", ncols=4
        )
    else:
        label(axes[0], "No training curve", "")
    return figure


def calibration(siblings: pd.DataFrame, unit: str = "") -> Figure:
    """Q against the MCTS value of sibling actions, both less their state's mean.

    Each kind of action has a colour and a marker of its own, where the table tells ``kind``; those
    beyond the ``KINDS`` commonest share one. Takes ``siblings.score``. unit: of Q.
    """
    figure, (axes,) = panels(1, 1, (6.8 if "kind" in siblings else 5.2, 3.4))
    value = siblings["value_centred"]
    _actions(axes, siblings)
    if value.nunique() > BINS:
        cut = pd.qcut(value, BINS, duplicates="drop")
        grouped = siblings.groupby(cut, observed=True)
        mean, error = grouped["q_centred"].mean(), 1.96 * grouped["q_centred"].sem()
        axes.errorbar(
            grouped["value_centred"].mean(),
            mean,
            yerr=error,
            label="mean of a bin, 95 %",
            **LINE | {"color": DARK},
        )
    if value.nunique() > BINS or "kind" in siblings:
        axes.legend(
            frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.2
        )
    axes.axhline(0, color=DARK, linewidth=0.6)
    axes.axvline(0, color=DARK, linewidth=0.6)
    label(
        axes,
        "Q against search, within a state",
        "MCTS value less the siblings' mean",
        with_unit("Q less the siblings' mean", unit),
    )
    return figure


def _actions(axes: Axes, siblings: pd.DataFrame) -> None:
    """Each action as a dot, by its kind where that is told."""
    if "kind" not in siblings:
        parts = [("an action", siblings)]
    else:
        common = list(siblings["kind"].value_counts().index[: len(KINDS)])
        parts = [(kind, siblings[siblings["kind"] == kind]) for kind in common]
        parts += [("other kinds", siblings[~siblings["kind"].isin(common)])]
    styles = [*KINDS[: len(parts) - 1], (GREY, "o")]
    for (name, part), (colour, marker) in zip(parts, styles, strict=True):
        if len(part):
            axes.scatter(
                part["value_centred"],
                part["q_centred"],
                s=12 if "kind" in siblings else 7,
                color=colour,
                marker=marker,
                alpha=0.6,
                linewidths=0,
                label=f"{name} ({len(part):,})",
            )


def _curve(
    axes: Axes, rows: pd.DataFrame, column: str, name: str, colour: str, dashes: str, marker: str
) -> None:
    train, held = rows[rows["split"] == "train"], rows[rows["split"] == "held-out"]
    axes.plot(
        train["step"],
        smooth(train[column]),
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
