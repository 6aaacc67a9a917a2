"""The published axes of ablation: what the paper says of a choice, and what a grid here earned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qvlib.pipeline.grids import Cell, labelled
from qvlib.report.formats import difference, interval
from qvlib.report.published.figures import UNKNOWN, figures, is_doubtful, source

RUN = "the run"
NOT_TOLD = UNKNOWN
"""What stands for a choice of which no figure could be read."""
CANDIDATES = "candidates"
TWINS = ("likely", "foreign", "oracle")


def axes(cells: list[Cell], table: pd.DataFrame) -> pd.DataFrame:
    """One row a choice of a grid, axis by axis; on an axis of numbers the run's own among them.

    cells, table: of ``grids.read`` and ``grids.table``. ``paper`` is what is published of the
    choice, in words, ``source`` where.
    """
    own, *others = zip(cells, table.to_dict("records"), strict=True)
    base = own[0].params.flat()
    rows: list[dict[str, Any]] = []
    for axis in dict.fromkeys(cell.axis for cell, _ in others):
        on_axis = [(cell.change, row) for cell, row in others if cell.axis == axis]
        name = _one_number(on_axis)
        if name:
            on_axis.append(({name: base[name]}, own[1]))
            on_axis.sort(key=lambda each: each[0][name])
        rows += [
            {
                **row,
                "axis": axis,
                "choice": f"{labelled(change)}{' (the run)' * (row is own[1])}",
                "own": row is own[1],
                **_published(axis, {**base, **change}),
            }
            for change, row in on_axis
        ]
    return pd.DataFrame(rows)


def _one_number(on_axis: list[tuple[Mapping[str, Any], Any]]) -> str:
    """The parameter that alone varies on an axis, where it is a number."""
    names = {tuple(change) for change, _ in on_axis}
    numbers = all(type(value) in (int, float) for c, _ in on_axis for value in c.values())
    return next(iter(names))[0] if len(names) == 1 and len(min(names)) == 1 and numbers else ""


def _published(axis: str, params: Mapping[str, Any]) -> dict[str, str]:
    for figure in figures()["axes"]:
        choice = figure["choice"].items()
        if figure["axis"] == axis and all(params.get(name) == value for name, value in choice):
            return {"paper": _words(figure), "source": source(figure)}
    return {"paper": NOT_TOLD, "source": ""}


def _words(figure: Mapping[str, Any]) -> str:
    said = figure.get("says") or f"{figure['q']:.3f} for {figure['sample']:.3f} sampled"
    return f"{said} {UNKNOWN}" if is_doubtful(figure) else said


def display_axes(table: pd.DataFrame) -> pd.DataFrame:
    """``axes`` for reading: what is published beside our gain."""
    return pd.DataFrame(
        [
            {
                "axis": row["axis"],
                "choice": row["choice"],
                "paper": row["paper"],
                "gain over one sample, ours": _difference(row, "gain"),
                "change against the run, ours": "" if row["own"] else _difference(row, "change"),
                "reward, ours": _reward(row),
                "source": row["source"],
                "failed": row["failed"],
            }
            for row in table.to_dict("records")
        ]
    )


def _difference(row: Mapping[str, Any], name: str) -> str:
    return difference(*(row.get(f"{name}{end}") for end in ("", "_low", "_high")))


def _reward(row: Mapping[str, Any]) -> str:
    if pd.isna(row["reward"]):
        return ""
    return f"{row['reward']:.3f} {interval(row['reward_low'], row['reward_high'])}"


def by_candidates(table: pd.DataFrame) -> pd.DataFrame:
    """One row a number of candidates: mean reward of Q and of its twins; what Q earns more.

    table: of ``grids.table``. One candidate is one sample, which no one chooses.
    """
    known = [twin for twin in TWINS if f"minus_{twin}" in table]
    rows = table[table["axis"].isin([RUN, CANDIDATES]) & (table["failed"] == "")]
    rows = rows.drop_duplicates(CANDIDATES).sort_values(CANDIDATES)
    found = [
        {
            "n": int(row[CANDIDATES]),
            "q": row["reward"],
            "q_low": row["reward_low"],
            "q_high": row["reward_high"],
            **{twin: row[twin] for twin in known},
            **{
                f"{minus}{end}": row[f"{minus}{end}"]
                for minus in ("gain", *(f"minus_{twin}" for twin in known))
                for end in ("", "_low", "_high")
            },
        }
        for row in rows.to_dict("records")
    ]
    if found and found[0]["n"] > 1:
        sample = rows["sample"].iloc[0]
        found.insert(0, {"n": 1, "q": sample, **dict.fromkeys(known, sample)})
    return pd.DataFrame(found)


def display_candidates(table: pd.DataFrame) -> pd.DataFrame:
    """``by_candidates`` for reading."""
    words = {"likely": "likeliest", "foreign": "foreign instruction", "oracle": "oracle"}
    known = [twin for twin in TWINS if twin in table]
    return pd.DataFrame(
        [
            {
                "n": row["n"],
                "Q": f"{row['q']:.3f}",
                **{words[twin]: f"{row[twin]:.3f}" for twin in known},
                "Q minus one sample": _difference(row, "gain") if row["n"] > 1 else "",
                **{
                    f"Q minus {words[twin]}": _difference(row, f"minus_{twin}")
                    if row["n"] > 1
                    else ""
                    for twin in known
                },
            }
            for row in table.to_dict("records")
        ]
    )
