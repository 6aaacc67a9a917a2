"""What the study of preferences against regression allows to say; takes ``regression.effects``.

An effect is told as shown only where its 95 % interval is apart from zero, a cause only where the
difference that it is to explain is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qvlib.base import markup
from qvlib.report.regression import AS_IT_IS, BY_REWARD, PARTS, TUNED, WHOLE
from qvlib.report.sentences.gains import change, holds_zero, listed, verdict_of

Row = Mapping[str, Any]
WORDS = {
    "parametrisation": "a log-ratio instead of a head",
    "loss": "preferences instead of regression",
    "target": "the advantage as target instead of the value",
}
"""What an effect is, in words."""
CHOSEN = {
    AS_IT_IS: "As they are",
    TUNED: "Each with the best of its rates by held-out pairs",
    BY_REWARD: "Each with the best of its rates by reward on these very tasks, which flatters all",
}
"""How the settings of the methods may have been chosen, in words."""


def _entry(row: Row, name: str = "mean") -> dict[str, Any]:
    return {"mean": row[name], "ci95": [row[f"{name}_low"], row[f"{name}_high"]]}


def _of(rows: Sequence[Row], condition: str) -> dict[str, dict[str, Any]]:
    return {row["effect"]: _entry(row) for row in rows if row["condition"] == condition}


def _main(rows: Sequence[Row]) -> str:
    """The condition that the study judges by: the tuned one, where it was tried whole."""
    return TUNED if WHOLE in _of(rows, TUNED) else AS_IT_IS


def _side(entry: Mapping[str, Any]) -> int:
    """1 where an interval lies above zero, -1 below it, 0 where it holds it."""
    return 0 if holds_zero(entry) else 1 if entry["mean"] > 0 else -1


def opposite(heads: Sequence[Row]) -> str:
    """What AgentRM reports; takes the published figures ``heads``."""
    told = {row["what"]: row["reward"] for row in heads}
    apart = told["value head"] - told["log-ratio"]
    return (
        f"AgentRM (arXiv {heads[0]['source']}) reports, as the mean of nine tasks: greedy "
        f"{told['greedy']:.3f}, a log-ratio {told['log-ratio']:.3f}, a value head "
        f"{told['value head']:.3f}: the head {apart:+.3f} over the log-ratio, without an interval."
    )


def failed(rows: Sequence[Row]) -> str:
    """Which cells of the grid failed, and why; takes ``grids.table``."""
    wrong = [
        f"- {markup.literal(row['axis'])}: {markup.literal(row['choice'])} "
        f"({markup.literal(row['failed'])})"
        for row in rows
        if row["failed"]
    ]
    return "\n".join(["Failed:", "", *wrong] if wrong else ["No cell failed."])


def whole(rows: Sequence[Row]) -> str:
    """Whether there is a difference to explain, as the methods are and each with its best rate."""
    lines = []
    for condition, words in CHOSEN.items():
        entry = _of(rows, condition).get(WHOLE)
        if entry is None:
            continue
        meant = {
            1: "step DPO is ahead here, the opposite of what AgentRM reports",
            -1: "the value head is ahead here, as AgentRM reports",
            0: "neither is shown to be ahead here",
        }[_side(entry)]
        lines.append(f"**{words}**: {WHOLE} {change(entry)}: {verdict_of(entry)}; {meant}.")
    return "\n".join(f"- {line}" for line in lines) or "Step DPO and AgentRM were not both tried."


def parts(rows: Sequence[Row]) -> str:
    """What the difference is made of: three effects that add up to it."""
    known = _of(rows, _main(rows))
    if not known.keys() >= {WHOLE, *PARTS}:
        return "Not all methods of the two by two were tried, so it cannot be taken apart."
    lines = [
        f"**{part}**, {WORDS[part]}: {change(known[part])}: {verdict_of(known[part])}."
        for part in PARTS
    ]
    lines.append(f"They add up to {change(known[WHOLE])}.")
    lines.append(_larger(known["parametrisation minus loss"]))
    mixed = known["interaction"]
    if holds_zero(mixed):
        said = "that one depends on the other is not shown"
    else:
        more = "more" if mixed["mean"] > 0 else "less"
        said = f"preferences are worth {more} with a log-ratio than with a head"
    lines.append(f"**Interaction** {change(mixed)}: {said}.")
    return "\n".join(f"- {line}" for line in lines)


def _larger(entry: Mapping[str, Any]) -> str:
    told = f"**Parametrisation minus loss** {change(entry)}"
    if holds_zero(entry):
        return f"{told}: which of the two is worth more is not shown."
    more, less = ("parametrisation", "loss")[:: 1 if entry["mean"] > 0 else -1]
    return f"{told}: the {more} is worth more than the {less}."


def crossed(rows: Sequence[Row], condition: str) -> str:
    """What a condition does to the difference and to its parts."""
    of = [row for row in rows if row["condition"] == condition]
    found = next((row for row in of if row["effect"] == WHOLE), None)
    if found is None:
        return "Not all methods were tried so in this run."
    entry, moved = _entry(found), _entry(found, "change")
    lines = [
        f"{WHOLE} {change(entry)}: {verdict_of(entry)}.",
        f"Against the methods as they are it changes by {change(moved)}: {verdict_of(moved)}.",
    ]
    changes = {row["effect"]: _entry(row, "change") for row in of if row["effect"] in PARTS}
    shown = [f"{part} {change(e)}" for part, e in changes.items() if not holds_zero(e)]
    if shown:
        lines.append(f"Of its parts these change: {listed(shown)}.")
    elif changes:
        lines.append("Of none of its parts a change is shown.")
    return "\n".join(f"- {line}" for line in lines)


def conclusion(rows: Sequence[Row]) -> str:
    """The answer in a paragraph: the causes that are shown, and those that are not."""
    main = _main(rows)
    known = _of(rows, main)
    if WHOLE not in known:
        return "The study was not run whole, so it says nothing."
    side = _side(known[WHOLE])
    if side == 0:
        return (
            f"**No difference is shown** between step DPO and AgentRM here "
            f"({change(known[WHOLE])}), so there is nothing to explain."
        )
    ahead = "Step DPO" if side > 0 else "AgentRM"
    causes = [part for part in PARTS if part in known and _side(known[part]) == side]
    counter = [part for part in PARTS if part in known and _side(known[part]) == -side]
    said = [f"**{ahead} is ahead here** ({WHOLE} {change(known[WHOLE])})."]
    if causes:
        told = listed([f"{WORDS[part]} ({change(known[part])})" for part in causes])
        said.append(f"Shown as a cause: {told}.")
    else:
        said.append("Neither parametrisation, loss nor target alone is shown to be the cause.")
    if counter:
        told = listed([f"{WORDS[part]} ({change(known[part])})" for part in counter])
        said.append(f"Against it works {told}.")
    said += [_otherwise(rows, side), _moving(rows), _parts_moved(rows), _without(rows)]
    return " ".join(filter(None, said))


def _otherwise(rows: Sequence[Row], side: int) -> str:
    """Whether another way of choosing the rates says otherwise."""
    entry = _of(rows, BY_REWARD).get(WHOLE)
    if entry is None or _side(entry) == side:
        return ""
    return f"**With rates chosen by reward it is not so**: {change(entry)}, {verdict_of(entry)}."


def _moving(rows: Sequence[Row]) -> str:
    """Which way each condition moves the difference from where it is as the methods are."""
    moved = {
        row["condition"]: _side(_entry(row, "change"))
        for row in rows
        if row["effect"] == WHOLE and row["condition"] != AS_IT_IS
    }
    ways = {1: "moved towards step DPO", -1: "moved towards AgentRM"}
    parts = [
        f"{words} by {listed([markup.code(name) for name, side in moved.items() if side == way])}"
        for way, words in ways.items()
        if way in moved.values()
    ]
    still = [markup.code(name) for name, side in moved.items() if not side]
    if still:
        parts.append(f"not shown to be moved by {listed(still)}")
    return f"From the methods as they are the difference is {'; '.join(parts)}." if parts else ""


def _parts_moved(rows: Sequence[Row]) -> str:
    """Which part of the difference a condition changes."""
    moved = [
        f"{markup.code(row['condition'])} moves the {row['effect']} ({change(entry)})"
        for row in rows
        if row["effect"] in PARTS
        and row["condition"] != AS_IT_IS
        and _side(entry := _entry(row, "change"))
    ]
    return f"Of its parts, {listed(moved)}." if moved else ""


def _without(rows: Sequence[Row]) -> str:
    """Under which conditions there is no difference, though that they move it is not shown."""
    none = [
        f"{markup.code(row['condition'])} ({change(entry)})"
        for row in rows
        if row["effect"] == WHOLE
        and row["condition"] != _main(rows)
        and not _side(entry := _entry(row))
    ]
    return f"Under {listed(none)} by itself no difference is shown." if none else ""
