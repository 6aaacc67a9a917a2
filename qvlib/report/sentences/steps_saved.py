"""What the study of searches by a value head allows to say; takes ``value_search.reckoned``.

Steps are told as saved only where the interval of what is saved lies above zero, beside what one
sample saves without any value; that trying the environment bought reward only where the paired
differences to one trial do, of five candidates and of as many draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from qvlib.agents.arms import BASE
from qvlib.base import markup
from qvlib.report.sentences.gains import above_zero, change, holds_zero, listed, verdict_of
from qvlib.report.value_search import BY_VALUES, steps_saved

Row = Mapping[str, Any]
Entry = Mapping[str, Any]
Over = Mapping[str, Mapping[str, Entry]]
"""An arm of one trial -> arm that tries -> its reward minus that of the one trial, paired."""
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
    lines = [*map(_saves, _tried(rows)), *_without(rows)]
    return "\n".join(f"- {line}" for line in lines) if _tried(rows) else NONE


def _without(rows: Sequence[Row]) -> list[str]:
    """What an episode saves that goes by no value: no search by values is the cause of that."""
    return [
        f"One sample, which goes by no value, saves {_amount(row)} too: MCTS takes its first steps "
        "to expand the root, whatever is then found"
        for row in rows
        if row["arm"] == BASE and row["saved_low"] > 0
    ]


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
    """Its reward less that of MCTS with as many steps, and one sample's; a Markdown list."""
    lines = []
    for row in (*_tried(rows), *(row for row in rows if row["arm"] == BASE and _tried(rows))):
        entry = {"mean": row["less"], "ci95": [row["less_low"], row["less_high"]]}
        lines.append(
            f"- {markup.code(row['arm'])} less MCTS of {row['env_steps']:.1f} steps a task: "
            f"{change(entry)}, {verdict_of(entry)}."
        )
    return "\n".join(lines) or NONE


def trying(rows: Sequence[Row], over: Over) -> str:
    """What trying the environment bought over one trial of the same values; a Markdown list."""
    known = {row["arm"]: row for row in rows}
    lines = []
    for arm in _arms(over):
        for one_trial, entries in over.items():
            if arm in entries:
                own, other = known[arm], known[one_trial]
                lines.append(
                    f"{markup.code(arm)} less {markup.code(one_trial)}: {change(entries[arm])}, "
                    f"with {own['env_steps']:.1f} steps a task in the place of "
                    f"{other['env_steps']:.1f}, and {own['tokens']:.0f} tokens written in the "
                    f"place of {other['tokens']:.0f}: {verdict_of(entries[arm])}"
                )
        lines.append(f"**{_bought(arm, over)}**")
    return "\n".join(f"- {line}." for line in lines) or NONE


def _arms(over: Over) -> list[str]:
    return [*dict.fromkeys(arm for entries in over.values() for arm in entries)]


def _bought(arm: str, over: Over) -> str:
    """Whether an arm earns more than each one trial that it is compared with."""
    more, alike, less = _beside(arm, over)
    name = markup.code(arm)
    if not alike and not less:
        return f"Trying the environment bought {name} reward"
    if not more and not alike:
        return f"{name} earns less, though it tries the environment"
    if more:
        return (
            f"{name} earns more than {listed(more)}, but not shown more than {listed(alike + less)}"
        )
    return f"That trying the environment bought {name} anything is not shown"


def _beside(arm: str, over: Over) -> tuple[list[str], list[str], list[str]]:
    """The one trials that it earns more than, those it is not told from, those it earns less."""
    more, alike, less = [], [], []
    for one_trial, entries in over.items():
        if entry := entries.get(arm):
            group = alike if holds_zero(entry) else more if above_zero(entry) else less
            group.append(markup.code(one_trial))
    return more, alike, less


def conclusion(rows: Sequence[Row], over: Over, under: Mapping[str, Entry]) -> str:
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
    said += [f"{line}." for line in _without(rows)]
    for arm in _arms(over):
        more, alike, less = _beside(arm, over)
        parts = [
            f"earns more than {listed(more)}" if more else "",
            f"is not shown to earn more than {listed(alike)}" if alike else "",
            f"earns less than {listed(less)}" if less else "",
        ]
        said.append(f"{markup.code(arm)} {listed([*filter(None, parts)])}.")
    known = {row["arm"]: row for row in rows}
    played = [name for name in over if name in known]
    if played and _arms(over):
        amounts = [f"{markup.code(name)} {_amount(known[name])}" for name in played]
        said.append(
            f"These go by the same values, try nothing, and save as well: {listed(amounts)}."
            if all(known[name]["saved_low"] > 0 for name in played)
            else f"These go by the same values and try nothing; steps saved: {listed(amounts)}."
        )
    said += [_whole(arm, entry) for arm, entry in under.items()]
    return " ".join(said)


def _whole(arm: str, entry: Entry) -> str:
    told = f"{markup.code(arm)} less the whole search {change(entry)}"
    if holds_zero(entry):
        return f"{told}: which earns more is not shown."
    return f"{told}: {'it' if entry['mean'] > 0 else 'the whole search'} earns more."
