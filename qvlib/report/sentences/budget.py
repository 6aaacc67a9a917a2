"""What arms at one budget allow to say; takes ``budget.reckoned``.

That Q of five earns more, or less, is said only where the interval of the paired difference lies on
one side of zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from qvlib.agents.arms import BASE, MAIN
from qvlib.base import markup
from qvlib.pipeline.comparison import Outcome
from qvlib.pipeline.tuning import Try, at_end
from qvlib.report.sentences.gains import above_zero, holds_zero, listed

Row = Mapping[str, Any]
BUDGETS = {
    "minus_tokens": "With as many tokens as Q of five spends, what Q reads counted",
    "minus_steps": "With as many steps in the environment",
}


def standing(rows: Sequence[Row], of: str = "minus") -> tuple[list[str], list[str], list[str]]:
    """Arms that Q of five is shown to exceed, those it is not told from, those that exceed it.

    of: ``minus``, ``minus_tokens`` or ``minus_steps``; arms that cannot be played so are in none.
    """
    more, alike, less = [], [], []
    for row in rows:
        if row["arm"] == MAIN or pd.isna(row[of]):
            continue
        entry = {"mean": row[of], "ci95": [row[f"{of}_low"], row[f"{of}_high"]]}
        group = alike if holds_zero(entry) else more if above_zero(entry) else less
        group.append(markup.code(row["arm"]))
    return more, alike, less


def ends(outcome: Outcome, tries: Sequence[Try]) -> str:
    """Which chosen numbers are the greatest or the least tried; a sentence. tries: of ``read``."""
    found = [
        f"{markup.code(name)} ({', '.join(at)})"
        for name, one in outcome.chosen.items()
        if (at := at_end(one, tries))
    ]
    return f"At an end: {listed(found)}." if found else "None was chosen at an end."


def at_one_budget(rows: Sequence[Row]) -> str:
    """Where Q of five stands at its own budgets; a Markdown list."""
    lines = []
    for of, words in BUDGETS.items():
        lines.append(f"{words}, {_told(*standing(rows, of))}.")
        costly = [
            markup.code(row["arm"]) for row in rows if pd.isna(row[of]) and row["arm"] != MAIN
        ]
        if costly:
            lines[-1] += f" Not to be had for so little: {listed(costly)}."
    return "\n".join(f"- {line}" for line in lines)


def conclusion(rows: Sequence[Row]) -> str:
    """The answer in a paragraph, with how many comparisons it makes."""
    names = ("minus", *BUDGETS)
    count = sum(row["arm"] != MAIN and not pd.isna(row[of]) for row in rows for of in names)
    parts = [f"As they were played, {_told(*standing(rows))}."]
    parts += [f"{words}, {_told(*standing(rows, of))}." for of, words in BUDGETS.items()]
    less = [
        markup.code(row["arm"])
        for row in rows
        if row["arm"] not in (MAIN, BASE) and row["reward"] > _of_main(rows)["reward"]
    ]
    if less:
        parts.append(
            f"A higher mean reward than Q of five, whatever was spent, have {listed(less)}."
        )
    chance = "that" if count == 1 else f"of these {count}"
    parts.append(
        f"Comparisons at 95 %: {count}; {chance} about {count * 0.05:.1f} would be significant by "
        "chance alone."
    )
    return " ".join(parts)


def _of_main(rows: Sequence[Row]) -> Row:
    return next(row for row in rows if row["arm"] == MAIN)


def _told(more: list[str], alike: list[str], less: list[str]) -> str:
    parts = [
        f"earns more than {listed(more)}" if more else "",
        f"is not told from {listed(alike)}" if alike else "",
        f"earns less than {listed(less)}" if less else "",
    ]
    told = [part for part in parts if part]
    return f"Q of five {listed(told)}" if told else "there is nothing to compare Q of five with"
