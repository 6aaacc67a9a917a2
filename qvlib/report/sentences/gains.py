"""A paired difference and its interval in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvlib.report.formats import difference, interval, relative

NOT_SIGNIFICANT = "not significant (95 % interval contains 0)"


def holds_zero(entry: Mapping[str, Any]) -> bool:
    """Whether the interval of a gain holds zero, sums of floats being what they are."""
    low, high = entry["ci95"]
    return low <= 1e-9 and high >= -1e-9


def above_zero(entry: Mapping[str, Any]) -> bool:
    """Whether a gain is shown: its whole interval is above zero."""
    return entry["mean"] > 0 and not holds_zero(entry)


def gain(name: str, entry: Mapping[str, Any], over: str) -> str:
    """What a paired gain and its interval allow to say."""
    share = relative_gain(entry)
    share = f", {share}" if share else ""
    return f"**{name}** over {over}: {change(entry)}{share}: {verdict_of(entry)}{_of_share(entry)}."


def _of_share(entry: Mapping[str, Any]) -> str:
    """Where the share's own interval says less than the difference's: the baseline varies too."""
    low, high = entry.get("relative_ci95") or (None, None)
    if holds_zero(entry) or low is None or not low <= 0 <= high:
        return ""
    return ", as a difference; as a share of the baseline it is not"


def verdict_of(entry: Mapping[str, Any]) -> str:
    """Whether an interval is apart from zero, and on which side."""
    if holds_zero(entry):
        return NOT_SIGNIFICANT
    return f"significantly {'above' if entry['ci95'][0] > 0 else 'below'} 0"


def change(entry: Mapping[str, Any]) -> str:
    """``+0.129 [+0.090, +0.170]``."""
    return difference(entry["mean"], *entry["ci95"])


def relative_gain(entry: Mapping[str, Any]) -> str:
    """``+37% [+20%, +54%]``; older runs have no such interval, nor has a baseline near nothing."""
    bounds = entry.get("relative_ci95")
    share = relative(entry.get("relative"))
    return f"{share} {interval(*bounds, '+.0%')}" if share and bounds else share


def success(arm: Mapping[str, Any]) -> str:
    """A share of successes with its interval.

    Older runs have a bootstrap's, which is empty where nothing, or all, succeeded: then none is
    given.
    """
    low, high = arm["success_ci95"] if "success_ci95" in arm else (None, None)
    bounds = "" if low is None or low == high else f" {interval(low, high, '.1%')}"
    return f"{arm['success_rate']:.1%}{bounds}"


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
