"""The numbers of a comparison of estimators: the keys that it adds to ``metrics.json``.

Each estimator is a run's method in little: its gain, what of it the labels, the instruction and the
score earn, what it orders rightly, what it costs. Chains and tasks are shared by all, so that two
estimators are paired by both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qvlib.agents.arms import BASE, MAIN
from qvlib.agents.asked import models_asked
from qvlib.base.files import write_json
from qvlib.base.paths import resolve
from qvlib.core.statistics import bootstrap_mean, mean_interval
from qvlib.estimators import estimator_of
from qvlib.pipeline.comparison import PLAYED, SHARED, Outcome
from qvlib.pipeline.params import EPISODES, Params
from qvlib.pipeline.tuning import PUBLISHED, Try, at_end, read, trials, tuned_on
from qvlib.report.numbers.against import against, comparable, difference
from qvlib.report.numbers.calibration import calibrated, within_states
from qvlib.report.numbers.episodes import by_task, load_episodes
from qvlib.report.numbers.gains import arm_rows, gain_rows
from qvlib.report.numbers.kinds import by_kind, scored_pairs
from qvlib.report.numbers.metrics_json import metrics
from qvlib.report.numbers.null import null
from qvlib.report.numbers.origins import played_tasks
from qvlib.report.numbers.pairs import held_out
from qvlib.runs.stage import read_stage


def comparison(params: Params, outcome: Outcome) -> dict[str, Any]:
    """``estimators``, ``comparisons``, ``best``, ``best_minus_published``, ``not_compared``.

    ``best`` is the best on the dev tasks, so that its numbers on the test tasks are of a choice
    made before. ``comparisons`` counts the intervals of differences on test tasks, ``tries`` the
    settings that were tried. Under ``best_minus_published`` stand ``dev`` and ``test``; None where
    there is no published form, or it is the best itself. An estimator has ``reward_mean``,
    ``gain`` and the ``gains`` of its other arms over one sample, ``against`` and ``null`` as a run
    has them, ``minus_best``, ``minus_published``, ``accuracy_by_kind``, ``calibration`` (None where
    its score is neither a value nor a probability), ``within_states``, ``unit`` of its score,
    ``cost``, ``tuned_on`` (``at_end`` names what was chosen at an end of what was tried), and
    ``own_trees`` where its settings change what is searched.
    """
    resamples = params.run.bootstrap
    played = {name: rows(params, one.params) for name, one in outcome.chosen.items()}
    entries = {
        name: _entry(params, one, outcome.tries, played[name])
        for name, one in outcome.chosen.items()
    }
    dev = {name: entry["tuned_on"]["reward"] for name, entry in entries.items()}
    best = max(dev, key=dev.__getitem__) if dev else None
    every = read(params)
    for name, one in outcome.chosen.items():
        entries[name]["tuned_on"]["at_end"] = at_end(one, every)
    together = _side_by_side(played)
    for name, entry in entries.items():
        for key, other in (("minus_best", best), ("minus_published", PUBLISHED)):
            if other in entries and other != name:
                entry[key] = minus(together, name, other, resamples)
    return {
        "estimators": entries,
        "comparisons": sum(map(_count, entries.values())),
        "tries": len(outcome.tries),
        "best": best,
        "best_minus_published": _best_minus_published(outcome, entries, best, resamples),
        "not_compared": dict(outcome.failed),
    }


def write_comparison(params: Params, outcome: Outcome) -> dict[str, Any]:
    """Add the comparison to ``metrics.json`` of the run; returns all that it then holds.

    What stands there is kept where it is of these parameters, else computed anew.
    """
    path = resolve(params.run.results_dir) / params.run.name / "metrics.json"
    known = _standing(path)
    if known.get("digest") != params.fingerprint():
        known = metrics(params)
    report = known | comparison(params, outcome)
    write_json(path, report)
    return report


def _standing(path: Path) -> dict[str, Any]:
    """What a file of metrics holds; of none, or of a damaged one, nothing: it is made anew."""
    try:
        known = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def rows(params: Params, chosen: Params) -> pd.DataFrame:
    """``by_task`` of an estimator's arms and those of the run that it is compared with."""
    active = {arm.name for arm in params.arms()}
    shared = [load_episodes(params, f"{EPISODES}{arm}") for arm in SHARED if arm in active]
    own = [load_episodes(chosen, f"{EPISODES}{arm}") for arm in PLAYED]
    return by_task(pd.concat([*shared, *own], ignore_index=True))


def minus(table: pd.DataFrame, arm: str, other: str, resamples: int) -> dict[str, Any]:
    """An arm's reward minus another's, paired: ``mean``, ``ci95``, and ``ci95_tasks``.

    The first interval is over chains and groups of tasks (t; of one chain the bootstrap), the
    second the bootstrap over groups alone: what it would be if other chains were as these.
    """
    told = difference(table, arm, other, resamples)
    if not told:
        return {}
    part, base = (table[table["arm"] == name] for name in (arm, other))
    below = base.set_index(["seed", "task"])["reward"]
    less = part["reward"].to_numpy() - below.loc[_keys(part)].to_numpy()
    _, low, high = bootstrap_mean(less, part["group"], resamples)
    return told | {"ci95_tasks": [low, high]}


def _keys(part: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(part[["seed", "task"]])


def _side_by_side(played: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of the method's arm of each estimator, under the estimator's name."""
    own = [table[table["arm"] == MAIN].assign(arm=name) for name, table in played.items()]
    return pd.concat(own, ignore_index=True) if own else pd.DataFrame()


def _entry(params: Params, one: Try, tries: pd.DataFrame, table: pd.DataFrame) -> dict[str, Any]:
    resamples, chosen = params.run.bootstrap, one.params
    told = comparable(table, played_tasks(params).get("instructions"))
    arms = arm_rows(table, resamples).set_index("arm")
    gains = gain_rows(told, resamples, BASE).set_index("arm")
    pairs = scored_pairs(chosen, params)
    nulls = null(table, resamples)
    own = arms.loc[MAIN]
    relative = gains.loc[MAIN, "relative"]
    return {
        "estimator": chosen.q_model.estimator,
        "reward_mean": float(own["reward"]),
        "ci95": [float(own["reward_low"]), float(own["reward_high"])],
        "success_rate": float(own["success"]),
        "gain": minus(table, MAIN, BASE, resamples)
        | {"relative": None if pd.isna(relative) else float(relative)},
        "against": against(told, resamples)[MAIN],
        "null": {key: value for key, value in nulls.items() if key != "n10"},
        "gains": {
            arm: {"mean": float(row["gain"]), "ci95": [float(row["low"]), float(row["high"])]}
            for arm, row in gains.iterrows()
            if arm != MAIN
        },
        "accuracy_by_kind": by_kind(pairs, resamples) if len(pairs) else {},
        "held_out_accuracy": held_out(chosen.each_seed())["held_out_accuracy"],
        "unit": estimator_of(chosen.q_model.estimator).unit,
        "calibration": calibrated(chosen, resamples),
        "within_states": within_states(pairs, resamples) or None,
        "cost": _cost(chosen, own),
        "tuned_on": _tuned_on(one, tries),
        "own_trees": _has_own_trees(params, chosen),
    }


def _cost(chosen: Params, own: pd.Series) -> dict[str, float | None]:
    """Means a test task of what the agent reads, writes and does, and what Q reads at most.

    ``fit_seconds`` are those of fitting one model.
    """
    asked = models_asked(chosen.q_model.estimator, chosen.arm(MAIN))
    times = [
        read_stage(chain, "q_model").manifest.get("part_seconds", {}).get("model")
        for chain in chosen.each_seed()
    ]
    known = [seconds for seconds in times if seconds is not None]
    return {
        **{name: float(own[name]) for name in ("tokens", "prompt_tokens", "env_steps")},
        "q_tokens_at_most": asked * float(own["tokens"] + own["prompt_tokens"]),
        "fit_seconds": float(np.mean(known)) if known else None,
    }


def _tuned_on(one: Try, tries: pd.DataFrame) -> dict[str, Any]:
    """Where and by what its settings were chosen: the tries, and those of the choice."""
    of_one = tries[tries["estimator"] == one.name]
    row = of_one[of_one["chosen"]].iloc[0]
    return {
        "split": "dev",
        "tasks": int(row["tasks"]),
        "seeds": [chain.run.seed for chain in tuned_on(one.params)],
        "tries": len(of_one),
        "failed": int((of_one["failed"] != "").sum()),
        "chosen": one.label,
        "reward": float(row["reward"]),
        "gain": {"mean": float(row["gain"]), "ci95": [float(row["low"]), float(row["high"])]},
    }


def _has_own_trees(params: Params, chosen: Params) -> bool:
    pairs = zip(params.each_seed(), chosen.each_seed(), strict=True)
    return any(own.digest("trees") != chain.digest("trees") for own, chain in pairs)


def _count(entry: Mapping[str, Any]) -> int:
    """The intervals of differences that are told of an estimator on the test tasks."""
    told: Iterable[Any] = (
        entry["gain"],
        *entry["against"].values(),
        entry["null"].get("mean"),
        entry.get("minus_best"),
        entry.get("minus_published"),
    )
    return sum(bool(interval) for interval in told)


def _best_minus_published(
    outcome: Outcome, entries: Mapping[str, Any], best: str | None, resamples: int
) -> dict[str, Any] | None:
    if best is None or best == PUBLISHED or PUBLISHED not in entries:
        return None
    own, published = (trials(outcome.chosen[name].params)["q"] for name in (best, PUBLISHED))
    less = (own - published).to_numpy()
    groups, seeds = (own.index.get_level_values(name) for name in ("group", "seed"))
    mean, low, high = mean_interval(less, groups, resamples, seeds)
    dev = {"mean": float(mean), "ci95": [float(low), float(high)]}
    return {"dev": dev, "test": entries[best]["minus_published"]}
