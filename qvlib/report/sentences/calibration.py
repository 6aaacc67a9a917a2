"""Whether scores are the values that they are meant as, and order the actions of a state, in words.

Takes ``calibration`` and ``within_states`` of the estimators in ``metrics.json``. A verdict is told
only where the interval of its number tells it; what is not told apart is called so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qvlib.base import markup
from qvlib.report.sentences.gains import listed

Told = Mapping[str, Any]
NO_VALUE = "No score of these is a value or a probability that outcomes could contradict."
NO_PAIRS = "Too few pairs of siblings tell how they are ordered."


def calibrated(metrics: Mapping[str, Any]) -> str:
    """What the intervals of bias, slope and rank correlation tell; a Markdown list."""
    entries = metrics.get("estimators") or {}
    values = {name: e["calibration"] for name, e in entries.items() if e["calibration"]}
    pairs = {name: e["within_states"] for name, e in entries.items() if e["within_states"]}
    lines = [_level(values), _differences(values)] if values else [NO_VALUE]
    lines.append(_order(pairs) if pairs else NO_PAIRS)
    return "\n".join(f"- {line}" for line in lines)


def _level(values: Mapping[str, Told]) -> str:
    first = next(iter(values.values()))
    return (
        f"**Level**, against what the agent's own episodes earned after {first['actions']:,} "
        f"actions that it sampled on {first['tasks']:,} test tasks: {_grouped(values, _of_level)}."
    )


def _of_level(told: Told) -> str:
    low, high = told["bias"]["ci95"]
    if low > 0:
        return "are too high on the whole"
    return "are too low on the whole" if high < 0 else "are not shown to be too high or too low"


def _differences(values: Mapping[str, Told]) -> str:
    return f"**Differences between scores**, against the same: {_grouped(values, _of_difference)}."


def _of_difference(told: Told) -> str:
    low, high = told["slope"]["ci95"]
    if high < 0:
        return "order outcomes the wrong way round"
    if low <= 0:
        return "are not shown to follow outcomes at all"
    if high < 1:
        return "differ by more than outcomes do"
    return (
        "differ by less than outcomes do" if low > 1 else "differ as outcomes do, as far as shown"
    )


def _order(pairs: Mapping[str, Told]) -> str:
    first = next(iter(pairs.values()))
    return (
        f"**Within a state**, by {first['pairs']:,} pairs of siblings of {first['tasks']:,} test "
        f"tasks that a search told apart: {_grouped(pairs, _of_order)}."
    )


def _of_order(told: Told) -> str:
    low, high = told["rank"]["ci95"]
    if low > 0:
        return "order siblings as the search did, more often than not"
    return (
        "order siblings the other way round, more often than not"
        if high < 0
        else "are not shown to order siblings one way or the other"
    )


def _grouped(entries: Mapping[str, Told], of: Callable[[Told], str]) -> str:
    """``scores of a and b VERDICT; scores of c ...``, in the order of each verdict's first."""
    verdicts = dict.fromkeys(map(of, entries.values()))
    return "; ".join(
        f"scores of {_names(n for n, told in entries.items() if of(told) == verdict)} {verdict}"
        for verdict in verdicts
    )


def _names(names: Iterable[str]) -> str:
    return listed([markup.code(name) for name in names])
