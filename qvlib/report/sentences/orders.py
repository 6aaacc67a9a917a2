"""How well Q orders what the search has ordered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qvlib.pipeline.cards import dropped_pairs
from qvlib.report.formats import interval


def accuracy(preferences: Mapping[str, Any]) -> str:
    """Held-out preference accuracy against the control's, and what was dropped from both."""
    right, pairs = preferences["held_out_accuracy"], preferences["held_out_pairs"]
    left_out = dropped_pairs(preferences)
    if right is None:
        said = (
            f"Of the {pairs} held-out pairs the estimator tells no accuracy."
            if pairs
            else "No pairs are held out, so nothing can be said about new tasks; "
            "raise `heldout_share` or `train_tasks`."
        )
    else:
        shuffled = ", ".join(
            f"{c:.1%}" for c in preferences["control_held_out_accuracy"] if c is not None
        )
        share, verdict = of_held_out(preferences)
        said = (
            f"Of {pairs} held-out pairs the Q model orders {share} rightly, {verdict}; "
            f"trained on shuffled labels: {shuffled}."
        )
    return f"{said} {left_out}" if left_out else said


def agreement(siblings: Mapping[str, float]) -> str:
    """How often Q orders siblings as the search did; takes ``siblings.agreement``."""
    pairs = int(siblings["pairs"])
    if not pairs:
        return "No siblings are held out in a run this small."
    share, verdict = _against_chance(
        siblings["agreement"], (siblings["low"], siblings["high"]), int(siblings["tasks"])
    )
    return (
        f"Of {pairs} pairs of siblings with different values Q orders {share} as the search did, "
        f"{verdict}."
    )


def of_held_out(preferences: Mapping[str, Any]) -> tuple[str, str]:
    """``_against_chance`` of the held-out pairs; no verdict where they are not told by task."""
    right = preferences["held_out_accuracy"]
    if "held_out_ci95" not in preferences:
        return f"{right:.1%}", "of how many tasks is not told, so no interval is given"
    return _against_chance(right, preferences["held_out_ci95"], preferences["held_out_tasks"])


def _against_chance(share: float, bounds: Sequence[float], tasks: int) -> tuple[str, str]:
    """A share with its interval over tasks, and whether that contains one half."""
    low, high = bounds
    if low > 0.5:
        verdict = "better than chance"
    elif high < 0.5:
        verdict = "worse than chance"
    else:
        verdict = "not distinguishable from chance (95 % interval contains 50 %)"
    of = f"{tasks} task{'s' * (tasks != 1)}"
    return f"{share:.1%} {interval(low, high, '.1%')}", f"{verdict}, the interval over {of}"
