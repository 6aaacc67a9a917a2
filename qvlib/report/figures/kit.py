"""What all pictures share: colours, panels, intervals, and how they are kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from qvlib.base.files import write_atomic
from qvlib.base.paths import resolve
from qvlib.pipeline.params import Params

DPI = 120
BLUE, ORANGE, GREY, DARK, PALE = "#0072B2", "#D55E00", "#8a8a8a", "#222222", "#c6d9e8"
LINE = {"color": BLUE, "marker": "o", "markersize": 5, "linewidth": 1.4, "capsize": 3}


def save(figure: Figure, params: Params, name: str) -> Path:
    """Write ``results/<name>/figures/<name>.png``; returns its path."""
    folder = resolve(params.run.results_dir) / params.run.name / "figures"
    return write_atomic(folder / f"{name}.png", png(figure))


def png(figure: Figure) -> bytes:
    """A figure as a file, the same for the same figure.

    A palette of 256 colours loses nothing that is seen, and two thirds of the size: pages embed
    their pictures.
    """
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(packed, "png", optimize=True)
    return packed.getvalue()


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of ``size`` inches with so many axes, row by row."""
    figure = Figure(figsize=size, layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns)))
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.set_axisbelow(True)
    return figure, axes


def label(axes: Axes, title: str, x_label: str, y_label: str = "") -> None:
    """Set a title and what the axes are."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)


def spread(table: pd.DataFrame, value: str, low: str, high: str) -> list[pd.Series]:
    """How far each interval reaches below and above its value, as ``errorbar`` takes it."""
    return [table[value] - table[low], table[high] - table[value]]


def boxes(axes: Axes, groups: Sequence[pd.Series], positions: Sequence[int]) -> None:
    """Boxes of quartiles, whiskers to the 5th and 95th percentile, a diamond for the mean."""
    axes.boxplot(
        [list(group) for group in groups],
        positions=list(positions),
        widths=0.6,
        whis=(5, 95),
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": PALE, "linewidth": 0.8},
        medianprops={"color": DARK},
        meanprops={
            "marker": "D",
            "markersize": 4,
            "markerfacecolor": "white",
            "markeredgecolor": DARK,
        },
    )
    axes.set_xticks(ticks(positions))


def ticks(positions: Sequence[int]) -> list[int]:
    """All positions, or every so many of them where they are too many to label."""
    return list(positions)[:: 1 + (len(positions) - 1) // 14]


def smooth(values: pd.Series) -> pd.Series:
    """A running mean over a fifteenth of the values."""
    return values.rolling(max(1, len(values) // 15), min_periods=1).mean()
