"""All numbers of a report in one mapping: ``results/<name>/metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qvlib.agents.arms import BASE, GREEDY
from qvlib.agents.reading import OTHER_FOREIGN_N5
from qvlib.agents.reranking import OTHER_Q_N5, OTHER_SAMPLE
from qvlib.base.files import write_json
from qvlib.base.paths import resolve
from qvlib.environments import names_of
from qvlib.pipeline.data import world_of
from qvlib.pipeline.params import Params
from qvlib.report.numbers.against import against, comparable, difference, reads
from qvlib.report.numbers.by_part import parts
from qvlib.report.numbers.costs import cost
from qvlib.report.numbers.episodes import (
    load_by_task,
    refused_share,
    shuffle_means,
)
from qvlib.report.numbers.gains import arm_rows, gain_rows, gap_closed, seed_table
from qvlib.report.numbers.kinds import accuracy_by_kind
from qvlib.report.numbers.null import null
from qvlib.report.numbers.origins import played_tasks, split_table
from qvlib.report.numbers.pairs import preferences


def metrics(params: Params) -> dict[str, Any]:
    """All numbers of the report, as they are written to ``results/<name>/metrics.json``.

    ``arms`` (reward_mean, ci95, success_rate, success_ci95, tasks, seeds and means a task of the
    costs); ``gains`` and ``gains_over_greedy`` (mean, ci95, relative); ``other_agent_gain`` over
    that agent's own sample, ``other_agent_against_foreign``; ``primary``, the comparison named
    beforehand, and its ``primary_difference``; ``against`` (the method minus each rival) and
    ``reads``; ``estimator`` and ``prior_weight``, what Q is and what its arms add to it;
    ``null``; ``control_shuffles`` (mean reward of each shuffle); ``search_iterations``
    of the arm ``search`` and ``gap_closed`` towards it; ``accuracy_by_kind`` on pairs of test
    tasks, and preference accuracy on held-out pairs; ``parts`` of the reward, where it has any;
    splits; ``cost`` in totals.
    """
    rows = load_by_task(params)
    told = comparable(rows, played_tasks(params).get("instructions"))
    arms = arm_rows(rows, params.run.bootstrap)
    means = arms.set_index("arm")["reward"]
    seeds = [chain.run.seed for chain in params.each_seed()]
    report = {
        "run": params.run.name,
        "environment": params.world.environment,
        "groups": names_of(world_of(params), params.world).groups,
        "seed": params.run.seed,
        "seeds": seeds,
        "chains": len(seeds),
        "primary": (primary := params.evaluation.primary),
        "primary_difference": difference(told, *primary.split(" minus "), params.run.bootstrap),
        "digest": params.fingerprint(),
        "bootstrap": params.run.bootstrap,
        "intervals": "t" if len(seeds) > 1 else "bootstrap",
        "filter_actions": params.sampling.filter_actions,
        "estimator": params.q_model.estimator,
        "prior_weight": params.evaluation.prior_weight,
        "arms": {
            row["arm"]: {**_arm_entry(row), "seeds": seeds} for row in arms.to_dict("records")
        },
        "gains": _gain_entries(gain_rows(rows, params.run.bootstrap, BASE)),
        "gains_over_greedy": _gain_entries(gain_rows(rows, params.run.bootstrap, GREEDY)),
        "against": (differences := against(told, params.run.bootstrap)),
        "reads": reads(differences),
        "null": null(rows, params.run.bootstrap),
        "control_shuffles": shuffle_means(params),
        "search_iterations": params.search.search_iterations,
        "gap_closed": gap_closed(means),
        "gap_closed_n10": gap_closed(means, "q_n10"),
        "by_seed": _known(seed_table(params)).to_dict("records"),
        "refused_share": refused_share(rows[rows["arm"] == BASE]),
        "preferences": preferences(params),
        "accuracy_by_kind": accuracy_by_kind(params),
        **({"parts": reached} if (reached := parts(params)) else {}),
        "splits": split_table(params).to_dict("records"),
        "cost": cost(params, rows),
    }
    content = difference(told, OTHER_Q_N5.name, OTHER_FOREIGN_N5.name, params.run.bootstrap)
    if content:
        report["other_agent_against_foreign"] = content
    second = rows[rows["arm"].isin([OTHER_SAMPLE.name, OTHER_Q_N5.name])]
    if len(second):
        gains = _gain_entries(gain_rows(second, params.run.bootstrap, OTHER_SAMPLE.name))
        report["other_agent_gain"] = gains[OTHER_Q_N5.name]
    return report


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """With None, which JSON has, for what is not known."""
    return table.astype(object).where(table.notna(), None)


def write_metrics(params: Params) -> dict[str, Any]:
    """Write ``metrics.json`` of the run and return what it holds."""
    report = metrics(params)
    write_json(resolve(params.run.results_dir) / params.run.name / "metrics.json", report)
    return report


def _arm_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    counts = (
        "tasks",
        "shuffles",
        "env_steps",
        "tokens",
        "prompt_tokens",
        "refused_share",
        "unparsable_share",
    )
    return {
        "reward_mean": row["reward"],
        "ci95": [row["reward_low"], row["reward_high"]],
        "success_rate": row["success"],
        "success_ci95": [row["success_low"], row["success_high"]],
        **{key: row[key] for key in counts if key in row},
    }


def _gain_entries(gains: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {
        row["arm"]: {
            "mean": row["gain"],
            "ci95": [row["low"], row["high"]],
            "relative": None if pd.isna(row["relative"]) else row["relative"],
            "relative_ci95": None
            if pd.isna(row["relative_low"])
            else [row["relative_low"], row["relative_high"]],
            **(
                {}
                if pd.isna(row.get("tasks_low"))
                else {"ci95_tasks": [row["tasks_low"], row["tasks_high"]]}
            ),
        }
        for row in gains.to_dict("records")
    }
