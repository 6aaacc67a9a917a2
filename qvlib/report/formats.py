"""How numbers are written, in every table and sentence; what is not known is left empty."""

from __future__ import annotations

import math


def interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """``[0.322, 0.361]``; ``form``: how each bound is written."""
    return "" if _missing(low) else f"[{low:{form}}, {high:{form}}]"


def signed(value: float | None, places: int = 3) -> str:
    """``+0.129``."""
    return "" if _missing(value) else f"{value:+.{places}f}"


def difference(mean: float | None, low: float, high: float) -> str:
    """``+0.129 [+0.090, +0.170]``: a difference of rewards with its interval."""
    return "" if _missing(mean) else f"{signed(mean)} {interval(low, high, '+.3f')}"


def relative(share: float | None, places: int = 0) -> str:
    """``+37%``: a gain relative to a baseline; empty where that earned nothing."""
    return "" if _missing(share) else f"{share:+.{places}%}"


def with_unit(name: str, unit: str) -> str:
    """``Q (nats)``; the name alone of what has no unit."""
    return f"{name} ({unit})" if unit else name


def number(value: object) -> str:
    """A number of any size with separators of thousands, ``1,234`` or ``0.3333``; else its text."""
    if isinstance(value, float):
        return "" if _missing(value) else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def millions(count: float) -> str:
    """``1.23 M``; empty for none."""
    return f"{count / 1e6:,.2f} M" if count else ""


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
