"""Names beside points, where no other name or point is, as far as there is room."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

SIZE = 6.5  # of the font, points
WIDE, HIGH = 0.56 * SIZE, 1.15 * SIZE
"""About the size of a letter, points."""
NEAR = 5.0
"""How far a name is from its point, points; more where it is crowded."""

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's text at the nearest free place around it, with a line where that is far.

    points: (x, y, text) in the units of the axes, whose limits and scales are set; without a text
    a point only takes its place.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # only then is known where the axes are
    to_points = 72.0 / figure.dpi
    places = [axes.transData.transform((x, y)) * to_points for x, y, _ in points]
    corners = axes.get_window_extent().get_points() * to_points
    room = (*corners[0], *corners[1])
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for (x, y, text), (left, bottom) in zip(points, places, strict=True):
        if not text:
            continue
        wide = WIDE * len(text)
        tries = list(_around(wide))
        dx, dy = min(tries, key=lambda move: _cost(_box(left, bottom, move, wide), taken, room))
        taken.append(_box(left, bottom, (dx, dy), wide))
        far = math.hypot(dx + wide / 2, dy) > wide / 2 + 3 * NEAR
        axes.annotate(
            text,
            (x, y),
            xytext=(dx, dy),
            textcoords="offset points",
            fontsize=SIZE,
            va="center",
            ha="left",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#8a8a8a"} if far else None,
        )


def _around(wide: float) -> Iterator[tuple[float, float]]:
    """Where a text may begin, from its point, the nearest first: right, left, above, below."""
    for ring in range(1, 8):
        away = ring * NEAR
        yield from ((away, 0.0), (-away - wide, 0.0))
        yield from ((-wide / 2, away + 2), (-wide / 2, -away - 2))
        yield from ((away, away), (away, -away), (-away - wide, away), (-away - wide, -away))


def _box(left: float, bottom: float, move: tuple[float, float], wide: float) -> Box:
    x, y = left + move[0], bottom + move[1]
    return x, y - HIGH / 2, x + wide, y + HIGH / 2


def _cost(box: Box, taken: Sequence[Box], room: Box) -> float:
    """The area that a box shares with others, and that it has outside the axes, square points."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _shared(box, room) + sum(_shared(box, other) for other in taken)


def _shared(box: Box, other: Box) -> float:
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, wide) * max(0.0, high)
