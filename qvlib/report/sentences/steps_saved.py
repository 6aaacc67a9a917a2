"""What the study of searches by a value head allows to say; takes ``value_search.reckoned``.

Steps are told as saved only where the interval of what is saved lies above zero; that trying the
environment bought reward only where the paired difference to one trial does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from qvlib.base import markup
from qvlib.report.sentences.gains import above_zero, change, holds_zero, listed, verdict_of
from qvlib.report.value_search import BY_VALUES, steps_saved

Row = Mapping[str, Any]
Entry = Mapping[str, Any]
NONE = (
    "Neither `beam` nor `best_first` was played, so there is nothing to compare: set `estimator` "
    "to one whose scores are values, and `beam_width` or `best_first_steps`."
)


def _tried(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["arm"] in BY_VALUES]


def _amount(row: Row) -> str:
    return steps_saved(row["saved"], row["saved_low"], row["saved_high"], _reached(row))


def _reached(row: Row) -> bool:
    return not pd.isna(row["needed"])


def curve(rows: Sequence[Row], iterations: int) -> str:
    """How far the curve of MCTS goes, and up to where it is that of every longer search."""
    whole, (search, *_) = rows[0]["whole"], rows
    return (
        f"Searches of {iterations} iterations end with {search['reward']:.3f} after "
        f"{search['longest']:.1f} steps a task, counted to the first reward of 1. Up to a budget "
        f"of {whole} steps none had run out of iterations, so that no longer search would have "
        "earned more there; beyond it one might."
    )


def saves(rows: Sequence[Row]) -> str:
    """Whether searching by values saves steps at equal reward; a Markdown list."""
    return "\n".join(f"- {_saves(row)}" for row in _tried(rows)) or NONE


def _saves(row: Row) -> str:
    earns = f"earns {row['reward']:.3f} with {row['env_steps']:.1f} steps a task"
    if _reached(row):
        needs = f"MCTS needs {row['needed']:.1f} for the same mean reward"
        if row["budget"] > row["whole"]:
            needs += ", or fewer with more iterations, since some searches had ended before"
    else:
        needs = f"MCTS does not reach it within {row['longest']:.1f}"
    return f"{markup.code(row['arm'])} {earns}; {needs}. {_verdict(row)}."


def _verdict(row: Row) -> str:
    if row["reward"] <= 0:
        return "**There is nothing to compare**: it earns nothing"
    if row["saved_low"] > 0:
        return f"**It saves steps**: {_amount(row)} a task"
    if row["saved_high"] < 0:
        return f"**It spends more steps than MCTS**: saved {_amount(row)} a task"
    return f"**That it saves steps is not shown**: {_amount(row)} a task"


def alike(rows: Sequence[Row]) -> str:
    """Its reward less that of MCTS with as many steps; a Markdown list."""
    lines = []
    for row in _tried(rows):
        entry = {"mean": row["less"], "ci95": [row["less_low"], row["less_high"]]}
        lines.append(
            f"- {markup.code(row['arm'])} less MCTS of {row['env_steps']:.1f} steps a task: "
            f"{change(entry)}, {verdict_of(entry)}."
        )
    return "\n".join(lines) or NONE


def trying(rows: Sequence[Row], over: Mapping[str, Entry], one_trial: str) -> str:
    """What trying the environment bought over one trial of the same values; a Markdown list.

    over: arm -> its reward minus that of the arm ``one_trial``, paired.
    """
    steps = {row["arm"]: row["env_steps"] for row in rows}
    return (
        "\n".join(
            f"- {markup.code(arm)} less {markup.code(one_trial)}: {change(entry)}, with "
            f"{steps[arm]:.1f} steps a task in the place of {steps[one_trial]:.1f}. "
            f"{_bought(entry)}."
            for arm, entry in over.items()
        )
        or NONE
    )


def _bought(entry: Entry) -> str:
    if holds_zero(entry):
        return "**Trying the environment bought nothing that is shown**"
    if entry["mean"] > 0:
        return "**Trying the environment bought reward**"
    return "**Trying the environment cost reward**"


def conclusion(
    rows: Sequence[Row],
    over: Mapping[str, Entry],
    under: Mapping[str, Entry],
    one_trial: str,
) -> str:
    """The answer in a paragraph.

    over: as ``trying`` has it. under: arm -> its reward minus that of whole searches, paired.
    """
    tried = _tried(rows)
    if not tried:
        return NONE
    saving = [row for row in tried if row["saved_low"] > 0]
    told = listed([f"{markup.code(row['arm'])} ({_amount(row)} a task)" for row in saving])
    said = [
        f"**Steps in the environment are saved** against MCTS at equal reward by {told}."
        if saving
        else "**No steps are shown to be saved** against MCTS at equal reward."
    ]
    others = [markup.code(row["arm"]) for row in tried if row not in saving]
    if saving and others:
        said.append(f"Of {listed(others)} it is not shown.")
    bought = [markup.code(arm) for arm, entry in over.items() if above_zero(entry)]
    vain = [markup.code(arm) for arm, entry in over.items() if not above_zero(entry)]
    if bought:
        said.append(
            f"{listed(bought)} earn{'s' * (len(bought) == 1)} more than {markup.code(one_trial)}, "
            "which goes by the same values and tries nothing."
        )
    if vain:
        said.append(
            f"{listed(vain)} {'is' if len(vain) == 1 else 'are'} not shown to earn more than "
            f"{markup.code(one_trial)}, which goes by the same values and tries nothing."
        )
    said += [
        f"{markup.code(one_trial)} itself saves {_amount(row)} a task."
        for row in rows
        if row["arm"] == one_trial and row["saved_low"] > 0
    ]
    said += [_whole(arm, entry) for arm, entry in under.items()]
    return " ".join(said)


def _whole(arm: str, entry: Entry) -> str:
    told = f"{markup.code(arm)} less the whole search {change(entry)}"
    if holds_zero(entry):
        return f"{told}: which earns more is not shown."
    return f"{told}: {'it' if entry['mean'] > 0 else 'the whole search'} earns more."
