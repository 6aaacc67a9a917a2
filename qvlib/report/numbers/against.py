"""The method against what could explain its gain away, paired by task, and whether Q reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qvlib.report.numbers.gains import gain_rows

METHOD = ("q_n5", "q_n10")
NOTHING = 1e-9  # sums of floats being what they are


def rivals(arm: str) -> dict[str, str]:
    """What an arm of the method is compared with -> the arm that plays it."""
    n = arm.removeprefix("q_")
    return {
        "foreign": f"foreign_q_{n}",
        "kind_only": f"kind_only_{n}",
        "within_kind": f"within_kind_{n}",
        "likely": f"likely_{n}",
        "greedy": "greedy",
        "script": "script",
        "demonstrator": "demonstrator",
        "oracle": f"oracle_{n}",
    }


def comparable(rows: pd.DataFrame, instructions: int | None) -> pd.DataFrame:
    """The rows less the arms of a foreign instruction, where all tasks have the same.

    Those do what Q does. instructions: how many different ones the test tasks have, None where that
    is not known.
    """
    return rows[~rows["arm"].str.contains("foreign")] if instructions == 1 else rows


def against(rows: pd.DataFrame, resamples: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Arm of the method -> rival -> ``mean`` and ``ci95`` of its reward minus the rival's.

    A rival that was not played is left out. rows: of ``by_task``.
    """
    played = set(rows["arm"])
    return {
        arm: {
            rival: told
            for rival, other in rivals(arm).items()
            if (told := difference(rows, arm, other, resamples))
        }
        for arm in METHOD
        if arm in played
    }


def reads(differences: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> bool | None:
    """Whether Q of five reads: it beats the foreign instruction AND the mean Q of the kind.

    Both intervals of the difference lie above zero. None where one was not played.
    """
    told = differences.get("q_n5", {})
    if not {"foreign", "kind_only"} <= told.keys():
        return None
    return all(told[rival]["ci95"][0] > NOTHING for rival in ("foreign", "kind_only"))


def difference(rows: pd.DataFrame, arm: str, other: str, resamples: int) -> dict[str, Any]:
    """``mean`` and ``ci95`` of an arm's reward minus another's; empty where one was not played."""
    if not {arm, other} <= set(rows["arm"]):
        return {}
    both = gain_rows(rows[rows["arm"].isin([arm, other])], resamples, other)
    row = both.set_index("arm").loc[arm]
    return {"mean": float(row["gain"]), "ci95": [float(row["low"]), float(row["high"])]}
