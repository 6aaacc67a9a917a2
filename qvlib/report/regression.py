"""Why one estimator of a step's value beats another: a two by two of methods, crossed with causes.

A method has a parametrisation (a log-ratio of two policies, or a value head) and a loss (on
preferences, or by regression on values). Each axis of the grid is a condition under which all
methods are tried on the same tasks and chains, so that every difference is paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from qvlib.pipeline.grids import Cell, bounded, rewards
from qvlib.pipeline.params import Params
from qvlib.report.formats import difference, interval

LOG_RATIO, HEAD = "log-ratio", "value head"
PREFERENCE, REGRESSION = "preference", "regression"
STEP_DPO, REBEL, BRADLEY_TERRY, ADVANTAGE, VALUE = (
    "step DPO",
    "REBEL",
    "Bradley-Terry head",
    "AgentRM, advantage",
    "AgentRM, value",
)
METHODS = {
    STEP_DPO: (LOG_RATIO, PREFERENCE),
    REBEL: (LOG_RATIO, REGRESSION),
    BRADLEY_TERRY: (HEAD, PREFERENCE),
    ADVANTAGE: (HEAD, REGRESSION),
    VALUE: (HEAD, REGRESSION),
}
"""Method -> its parametrisation and its loss; the last one's target also compares states."""
ESTIMATORS = {"step_dpo": STEP_DPO, "rebel": REBEL, "bradley_terry": BRADLEY_TERRY}
TARGETS = {"advantage": ADVANTAGE, "value": VALUE}
WHOLE = "step DPO minus AgentRM"
EFFECTS: dict[str, dict[str, float]] = {
    WHOLE: {STEP_DPO: 1, VALUE: -1},
    "parametrisation": {STEP_DPO: 0.5, REBEL: 0.5, BRADLEY_TERRY: -0.5, ADVANTAGE: -0.5},
    "loss": {STEP_DPO: 0.5, BRADLEY_TERRY: 0.5, REBEL: -0.5, ADVANTAGE: -0.5},
    "target": {ADVANTAGE: 1, VALUE: -1},
    "parametrisation minus loss": {REBEL: 1, BRADLEY_TERRY: -1},
    "interaction": {STEP_DPO: 1, REBEL: -1, BRADLEY_TERRY: -1, ADVANTAGE: 1},
}
"""Effect -> weights of the methods' rewards. The whole is parametrisation + loss + target: the
log-ratio less the head, the mean over losses; preferences less regression, the mean over
parametrisations; the advantage as target less the value."""
PARTS = ("parametrisation", "loss", "target")
AS_IT_IS, TUNED = "methods", "learning rate"
"""The axis of the methods as they are; that of their rates, of which each method has its best."""
BY_REWARD = "learning rate, by reward"
"""The same rates, each method with that of the highest reward on the very tasks that are shown."""


@dataclass(frozen=True)
class Trial:
    """A cell of the grid that tried a method under a condition, and its row of ``grids.table``."""

    method: str
    cell: Cell
    row: Mapping[str, Any]


Conditions = dict[str, dict[str, Trial]]
"""Condition, the first as it is -> method -> its trial; one that failed is left out."""


def method_of(params: Params) -> str:
    """What a method is called in the study; empty where it is no part of it."""
    target = getattr(params.estimator, "target", "")
    return TARGETS.get(target) or ESTIMATORS.get(params.q_model.estimator, "")


def conditions(cells: Sequence[Cell], table: pd.DataFrame) -> Conditions:
    """The trials of a grid by condition and method; empty where its axes are not of this study.

    cells, table: of ``grids.read`` and ``grids.table``. Under ``TUNED`` each method has that of its
    rates, the one as it is among them, whose Q model orders most held-out pairs rightly, under
    ``BY_REWARD`` that which earns most. On an axis that changes settings of estimators alone,
    methods that are not on it stay as they are.
    """
    tried = [
        Trial(name, cell, row)
        for cell, row in zip(cells, table.to_dict("records"), strict=True)
        if (name := method_of(cell.params)) and not row["failed"]
    ]
    as_it_is = {t.method: t for t in tried if t.cell is cells[0] or t.cell.axis == AS_IT_IS}
    if len(as_it_is) < 2:
        return {}
    as_it_is = {name: as_it_is[name] for name in METHODS if name in as_it_is}
    found: Conditions = {AS_IT_IS: as_it_is}
    for axis in dict.fromkeys(t.cell.axis for t in tried if t.cell is not cells[0]):
        on_axis = [t for t in tried if t.cell.axis == axis]
        if axis == TUNED:
            found[TUNED] = _tuned(as_it_is, on_axis, "held_out_accuracy")
            found[BY_REWARD] = _tuned(as_it_is, on_axis, "reward")
        elif axis != AS_IT_IS and len({t.method for t in on_axis}) > 1:
            kept = as_it_is if all(map(_of_estimator_alone, on_axis)) else {}
            names = {t.method for t in on_axis} | _not_on(axis, cells, kept)
            found[axis] = {**kept, **{t.method: t for t in on_axis}}
            found[axis] = {name: found[axis][name] for name in METHODS if name in names}
    return found


def _not_on(axis: str, cells: Sequence[Cell], kept: Mapping[str, Trial]) -> set[str]:
    """The methods that an axis has no cell of, which stay as they are; not those that failed."""
    return set(kept) - {method_of(cell.params) for cell in cells if cell.axis == axis}


def _of_estimator_alone(trial: Trial) -> bool:
    return set(trial.cell.change) <= {"estimator", *trial.cell.params.estimator.names()}


def _tuned(as_it_is: Mapping[str, Trial], rates: Sequence[Trial], by: str) -> dict[str, Trial]:
    """Method -> its trial of the highest number of this name in its row."""

    def number(trial: Trial) -> float:
        known = trial.row[by]
        return 0.0 if pd.isna(known) else known

    return {
        name: max([first, *(t for t in rates if t.method == name)], key=number)
        for name, first in as_it_is.items()
    }


def methods(found: Conditions) -> pd.DataFrame:
    """One row a condition and method: numbers of the cell, and which cell it is."""
    return pd.DataFrame(
        [
            {
                "condition": condition,
                "method": name,
                "parametrisation": METHODS[name][0],
                "loss": METHODS[name][1],
                **{k: v for k, v in trial.row.items() if k not in ("axis", "failed")},
            }
            for condition, by_method in found.items()
            for name, trial in by_method.items()
        ]
    )


def effects(found: Conditions, resamples: int) -> pd.DataFrame:
    """One row a condition and effect: ``mean`` with bounds, paired by chain and task.

    ``change`` with its bounds is that against the first condition. An effect of which a method is
    missing is left out.
    """
    rows = []
    base: dict[str, pd.Series] = {}
    for condition, by_method in found.items():
        earned = {name: rewards(trial.cell)["q"] for name, trial in by_method.items()}
        for effect, weights in EFFECTS.items():
            if not weights.keys() <= earned.keys():
                continue
            values = sum(weight * earned[name] for name, weight in weights.items())
            row = {"condition": condition, "effect": effect, **bounded("mean", values, resamples)}
            if condition == AS_IT_IS:
                base[effect] = values
            elif effect in base:
                row |= bounded("change", values - base[effect], resamples)
            rows.append(row)
    return pd.DataFrame(rows)


def display_methods(table: pd.DataFrame) -> pd.DataFrame:
    """``methods`` for reading."""

    def paired(row: Mapping[str, Any], name: str) -> str:
        return difference(*(row.get(f"{name}{end}") for end in ("", "_low", "_high")))

    return pd.DataFrame(
        [
            {
                "condition": row["condition"],
                "method": row["method"],
                "parametrisation": row["parametrisation"],
                "loss": row["loss"],
                "choice": row["choice"],
                "reward": f"{row['reward']:.3f} {interval(row['reward_low'], row['reward_high'])}",
                "gain over one sample": paired(row, "gain"),
                "Q minus foreign": paired(row, "minus_foreign"),
                "held-out pairs ordered": _share(row["held_out_accuracy"]),
            }
            for row in table.to_dict("records")
        ]
    )


def _share(value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.1%}"


def display_effects(table: pd.DataFrame) -> pd.DataFrame:
    """``effects`` for reading."""
    return pd.DataFrame(
        [
            {
                "condition": row["condition"],
                "effect": row["effect"],
                "difference of rewards": difference(row["mean"], row["mean_low"], row["mean_high"]),
                "change against as it is": difference(
                    *(row.get(f"change{end}") for end in ("", "_low", "_high"))
                ),
            }
            for row in table.to_dict("records")
        ]
    )
