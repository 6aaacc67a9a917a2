"""What scores of compared estimators are worth as numbers, as tables: values, or orders alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from qvlib.report.formats import difference, interval

NO_UNIT = "order of siblings"


def calibration(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """``calibration`` and ``within_states`` of each estimator, one row each, for a CSV."""
    rows = []
    for name, entry in metrics["estimators"].items():
        value, within = entry["calibration"] or {}, entry["within_states"] or {}
        row = {"estimator": name, "unit": entry["unit"], "outcome": value.get("outcome", "")}
        row |= {key: value.get(key, math.nan) for key in ("actions", "error", "error_by_chance")}
        row |= _bounded("bias", value.get("bias")) | _bounded("slope", value.get("slope"))
        row |= {"pairs": within.get("pairs", math.nan)} | _bounded("rank", within.get("rank"))
        rows.append(row | _bounded("slope_within", within.get("slope")))
    return pd.DataFrame(rows)


def display_calibration(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """``calibration`` rounded, for reading, with 95 % intervals.

    An expected calibration error has beside it what a score without any would have.
    """
    rows = []
    for name, entry in metrics["estimators"].items():
        value, within = entry["calibration"] or {}, entry["within_states"] or {}
        bias = value.get("bias")
        rows.append(
            {
                "estimator": name,
                "meant as": value.get("outcome", NO_UNIT),
                "score less outcome": difference(bias["mean"], *bias["ci95"]) if bias else "",
                "outcome a unit of score": _text(value.get("slope")),
                "calibration error": _error(value),
                "rank correlation within a state": _text(within.get("rank")),
                "reward a unit of score within a state": _text(within.get("slope"), ".2g"),
            }
        )
    return pd.DataFrame(rows)


def bins(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """The bins of both, one row an estimator, comparison and bin, for a CSV."""
    rows = []
    for name, entry in metrics["estimators"].items():
        for of in ("calibration", "within_states"):
            for row in (entry[of] or {}).get("bins", ()):
                low, high = row["ci95"] or (math.nan, math.nan)
                known = {key: row[key] for key in ("score", "outcome", "count")}
                rows.append({"estimator": name, "of": of, **known, "low": low, "high": high})
    return pd.DataFrame(rows)


def _error(value: Mapping[str, Any]) -> str:
    if not value:
        return ""
    chance = value["error_by_chance"]
    return f"{value['error']:.3f}" + ("" if chance is None else f" (by chance {chance:.3f})")


def _text(told: Mapping[str, Any] | None, form: str = ".2f") -> str:
    return f"{told['mean']:{form}} {interval(*told['ci95'], form)}" if told else ""


def _bounded(name: str, told: Mapping[str, Any] | None) -> dict[str, float]:
    mean, (low, high) = (told["mean"], told["ci95"]) if told else (math.nan, (math.nan,) * 2)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
