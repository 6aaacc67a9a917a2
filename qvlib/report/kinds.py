"""Sentences about what Q orders rightly, computed from ``numbers.accuracy_by_kind``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvlib.report.formats import interval
from qvlib.report.numbers.kinds import ALL, OTHER

NONE = "The searches of the test tasks give no pairs in a run this small."


def said(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A line a kind of pair, Markdown: how often Q is right, and what of it is reading.

    A verdict stands only where its interval tells: Q against a coin, against another task's
    instruction, against the agent's own log-probability.
    """
    if not found:
        return NONE
    return "\n".join(f"- **{kind}**: {_line(told, kind)}" for kind, told in found.items())


def commonest(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How Q orders the commonest kind of pair, in a sentence; "" where there are none."""
    kind = next(iter(found), ALL)
    if kind in (ALL, OTHER) or ALL not in found or found[kind]["own"] is None:
        return ""
    share = found[kind]["pairs"] / found[ALL]["pairs"]
    return (
        f"The commonest pairs that searches of the held-out tasks give ({share:.0%}) are of kind "
        f"*{kind}*: {_line(found[kind], kind)}"
    )


def adds_to_agent(found: Mapping[str, Mapping[str, Any]]) -> bool | None:
    """Whether Q orders the commonest kind of pair better than the agent's log-probability."""
    kind = next(iter(found), ALL)
    less = None if kind in (ALL, OTHER) else found[kind].get("own_minus_log_pi")
    return None if less is None else bool(less["ci95"][0] > 0)


def _line(told: Mapping[str, Any], kind: str) -> str:
    pairs, tasks = f"{told['pairs']:,} pairs", f"{told['tasks']:,} task{'s' * (told['tasks'] != 1)}"
    if told["own"] is None:
        return f"{pairs} of {tasks}; not every one has a Q."
    low, high = told["ci95"]
    coin = "better than a coin" if low > 0.5 else "worse than a coin" if high < 0.5 else ""
    where = ", if not of every kind" if kind == "all" else ""
    parts = [
        f"of {pairs} ({tasks}) Q orders {told['own']:.0%} {interval(low, high, '.0%')} rightly, "
        f"{coin or 'not shown to be other than a coin'}",
        _less(
            "another task's instruction",
            told["own_minus_foreign"],
            f"the instruction is read{where}",
        ),
        _less(
            "the agent's own log π",
            told["own_minus_log_pi"],
            f"it adds to what the agent knew{where}",
        ),
    ]
    return "; ".join(filter(None, parts)) + "."


def _less(rival: str, difference: Mapping[str, Any] | None, where_more: str) -> str:
    """Q less a rival, and what follows; "" where the rival is not known."""
    if difference is None:
        return ""
    low, high = difference["ci95"]
    if low > 0:
        verdict = where_more
    else:
        verdict = "it is worse" if high < 0 else "no difference is shown"
    return f"less {rival} {difference['mean']:+.2f} {interval(low, high, '+.2f')}, {verdict}"
