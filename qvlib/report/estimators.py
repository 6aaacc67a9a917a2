"""A comparison of estimators as tables: the tries, the ranking, what is ordered rightly, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from qvlib.report.formats import difference, interval, number

NONE = "Not part of this run: set `compare`, as `params/estimators.yml` does."
LESS = {  # what an estimator's reward is less -> how tables call it
    "null": "its controls",
    "foreign": "foreign instruction",
    "kind_only": "mean of the kind",
    "within_kind": "within the first kind",
    "likely": "likeliest of 5",
    "greedy": "greedy",
    "script": "script",
    "demonstrator": "demonstrator",
    "best": "best on dev",
    "published": "published",
}
SHOWN = ("null", "foreign", "kind_only", "likely", "published")
"""Those of the table for reading; all are in the CSV."""
MOST_KINDS = 5


def ranking(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """One row an estimator, the highest gain first; numbers with their bounds, for a CSV.

    ``seconds`` are those of fitting one Q model.
    """
    rows = []
    for name, entry in metrics["estimators"].items():
        row = {"estimator": name, "reward": entry["reward_mean"]}
        row |= _bounds("reward", entry["ci95"]) | _paired("gain", entry["gain"])
        row |= _bounds("gain_tasks", entry["gain"]["ci95_tasks"])
        for rival, told in less(entry).items():
            row |= _paired(f"minus_{rival}", told)
        costs = entry["cost"]
        row |= {key: costs[key] for key in ("tokens", "prompt_tokens", "env_steps")}
        row |= {"seconds": costs["fit_seconds"], "chosen": entry["tuned_on"]["chosen"]}
        rows.append(row | {"own_trees": entry["own_trees"]})
    if not rows:
        return pd.DataFrame(columns=["estimator", "reward", "gain"])
    table = pd.DataFrame(rows)
    return table.sort_values("gain", ascending=False, kind="stable", ignore_index=True)


def less(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What an estimator's reward is less each rival, those that were played."""
    told = {
        "null": entry["null"].get("mean"),
        **entry["against"],
        "best": entry.get("minus_best"),
        "published": entry.get("minus_published"),
    }
    return {rival: told[rival] for rival in LESS if told.get(rival)}


def display_ranking(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """``ranking`` rounded, for reading; paired differences with their 95 % intervals."""
    rows = []
    for name in ranking(metrics)["estimator"] if metrics["estimators"] else ():
        entry = metrics["estimators"][name]
        rivals = less(entry)
        rows.append(
            {
                "estimator": name,
                "reward": f"{entry['reward_mean']:.3f}",
                "gain over one sample": _text(entry["gain"]),
                "95 % over tasks": interval(*entry["gain"]["ci95_tasks"], "+.3f"),
                **{f"less {LESS[rival]}": _text(rivals.get(rival)) for rival in SHOWN},
            }
        )
    return pd.DataFrame(rows)


def display_tries(tries: pd.DataFrame) -> pd.DataFrame:
    """``pipeline.tuning.tried`` rounded, for reading."""
    gains = zip(tries["gain"], tries["low"], tries["high"], strict=True)
    return pd.DataFrame(
        {
            "estimator": tries["estimator"],
            "settings": tries["choice"],
            "reward on dev": ["" if math.isnan(r) else f"{r:.3f}" for r in tries["reward"]],
            "gain over one sample": [difference(*gain) for gain in gains],
            "chosen": ["yes" if chosen else "" for chosen in tries["chosen"]],
            "failed": tries["failed"],
        }
    )


def display_kinds(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Share of pairs of test tasks that each estimator orders as the search did, by kind of pair.

    The commonest kinds of the first estimator's; ``all`` with its interval, and under another
    task's instruction. Beside it the share of held-out training pairs.
    """
    rows = []
    told = {name: e["accuracy_by_kind"] for name, e in metrics["estimators"].items()}
    kinds = [kind for kind in next(iter(told.values()), {}) if kind != "all"][:MOST_KINDS]
    for name, by_kind in told.items():
        every = by_kind.get("all", {})
        held = metrics["estimators"][name]["held_out_accuracy"]
        row = {"estimator": name, "all": _share(every.get("own"), every.get("ci95"))}
        row["all, foreign instruction"] = _share(every.get("foreign"), every.get("foreign_ci95"))
        row |= {kind: _share(by_kind.get(kind, {}).get("own")) for kind in kinds}
        rows.append(row | {"held-out training pairs": _share(held)})
    return pd.DataFrame(rows)


def kinds(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """``accuracy_by_kind`` of all estimators, one row an estimator and kind of pair, for a CSV."""
    rows = [
        {"estimator": name, "kind": kind, "pairs": told["pairs"], "own": told["own"]}
        | _bounds("own", told["ci95"])
        | {"foreign": told["foreign"], "log_pi": told["log_pi"]}
        for name, entry in metrics["estimators"].items()
        for kind, told in entry["accuracy_by_kind"].items()
    ]
    return pd.DataFrame(rows)


def fitting(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """What fitting a Q model took by each estimator."""
    return {
        f"{name.replace('_', ' ')} seconds": entry["cost"]["fit_seconds"]
        for name, entry in metrics["estimators"].items()
    }


def costs(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Means a test task of what the agent reads, writes and does when each estimator chooses."""
    return pd.DataFrame(
        [
            {
                "estimator": name,
                "tokens written": number(round(entry["cost"]["tokens"])),
                "tokens read": number(round(entry["cost"]["prompt_tokens"])),
                "tokens that Q reads, at most": number(round(entry["cost"]["q_tokens_at_most"]))
                if "q_tokens_at_most" in entry["cost"]
                else "",
                "environment steps": f"{entry['cost']['env_steps']:.2f}",
            }
            for name, entry in metrics["estimators"].items()
        ]
    )


def _text(told: Mapping[str, Any] | None) -> str:
    return difference(told["mean"], *told["ci95"]) if told else ""


def _share(share: float | None, bounds: Any = None) -> str:
    if share is None:
        return ""
    return f"{share:.2f} {interval(*bounds, '.2f')}" if bounds else f"{share:.2f}"


def _paired(name: str, told: Mapping[str, Any]) -> dict[str, float]:
    return {name: told["mean"], **_bounds(name, told["ci95"])}


def _bounds(name: str, bounds: Any) -> dict[str, float]:
    low, high = bounds or (math.nan, math.nan)
    return {f"{name}_low": low, f"{name}_high": high}
