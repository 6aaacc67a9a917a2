"""What the searches found: values and visits by depth, and the pairs that come of them."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from qvlib.report.figures.kit import DARK, PALE, boxes, label, panels, ticks


def pairs_by_depth(pairs: pd.DataFrame) -> Figure:
    """Where preference pairs come from.

    Takes ``pairs.parquet`` (``path``, two values, two visits).
    """
    depth = pairs["path"].map(len)
    margin = pairs["chosen_value"] - pairs["rejected_value"]
    figure, (left, right) = panels(1, 2, (7.2, 2.9))
    counts = depth.value_counts().sort_index()
    bars = left.bar(counts.index, counts, color=PALE, edgecolor=DARK, linewidth=0.8)
    left.bar_label(bars, fontsize=8)
    label(left, "Pairs by depth", "actions before the two part (count)", "pairs (count)")
    left.margins(y=0.15)
    left.set_xticks(ticks(counts.index))
    boxes(right, [margin[depth == d] for d in counts.index], counts.index)
    label(
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
    figure, (left, right) = panels(1, 2, (7.2, 2.9))
    depth = "depth in the tree (actions)"
    boxes(left, [nodes.loc[nodes["depth"] == d, "value"] for d in depths], depths)
    label(left, "Value of visited nodes", depth, "mean backed-up value in [-1, 1]")
    boxes(right, [nodes.loc[nodes["depth"] == d, "visits"] for d in depths], depths)
    right.set_yscale("log")
    label(right, "Visits of visited nodes", depth, "visits (count, log scale)")
    return figure
