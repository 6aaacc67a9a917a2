"""From finished episodes to what is claimed: means, paired gains, intervals, costs.

Every number of the report is made here, from the stages' own files. Rewards are terminal rewards in
[0, 1]; intervals are 95 % bootstrap intervals over the groups (products, games) of the test tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pyarrow.parquet import read_schema

from qvlib import environments, pipeline
from qvlib.base.errors import QvlibError
from qvlib.base.files import write_json
from qvlib.base.paths import resolve
from qvlib.core.preferences import compared
from qvlib.core.statistics import bootstrap_mean, compare
from qvlib.core.types import DRAWN
from qvlib.models.names import is_remote
from qvlib.pipeline.params import STAGES, Params
from qvlib.runs.stage import read_stage

ORDER = (
    "sample",
    "greedy",
    "random_n5",
    "likely_n5",
    "rft",
    "q_n5",
    "q_n10",
    "tuned_policy",
    "mcts",
    "best_of_n",
    "other_agent_sample",
    "other_agent_q_n5",
    "control_q_n5",
    "control_q_n10",
)
COSTS = ("env_steps", *DRAWN)
BASE, GREEDY, BOUND, MAIN = "sample", "greedy", "mcts", "q_n5"
SECOND, SECOND_Q = "other_agent_sample", "other_agent_q_n5"


def by_task(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, chain (``seed``) and task: reward, success and costs, shuffles averaged first.

    A control's shuffles are the arms ``control_q_n5/0``, ``control_q_n5/1``, ...; the task's reward under
    ``control_q_n5`` is their mean, so that the interval over tasks is of the control, not of one shuffle.
    """
    frame = _counted(episodes)[["arm", "task", "group", "reward", *COSTS]].copy()
    frame["seed"] = episodes["seed"] if "seed" in episodes else 0
    frame["arm"], frame["shuffle"] = frame["arm"].str.split("/").str[0], frame["arm"]
    frame["success"] = (frame["reward"] >= 1).astype(float)
    rows = (
        frame.groupby(["arm", "seed", "task"], sort=False)
        .agg(
            group=("group", "first"),
            reward=("reward", "mean"),
            success=("success", "mean"),
            shuffles=("shuffle", "nunique"),
            **{c: (c, "mean") for c in COSTS},
        )
        .reset_index()
    )
    rank = {arm: i for i, arm in enumerate(ORDER)}
    rows["rank"] = rows["arm"].map(lambda arm: rank.get(arm, len(rank)))
    rows = rows.sort_values(["rank", "arm", "seed", "task"], ignore_index=True).drop(columns="rank")
    played = rows.groupby("arm").size()
    if played.nunique() > 1:
        raise QvlibError(
            f"arm {played.idxmin()!r} was played on {played.min()} tasks, others on {played.max()}; "
            "run notebooks/05_evaluate.ipynb again"
        )
    return rows


def load_by_task(params: Params) -> pd.DataFrame:
    """``by_task`` of the run's episodes."""
    return by_task(_episodes(params))


def shuffle_means(params: Params) -> dict[str, list[float]]:
    """Mean reward of each shuffle of each control, chain by chain: how much the luck of the coins decides."""
    frame = _episodes(params)
    frame = frame[frame["arm"].str.startswith("control")]
    frame[["arm", "shuffle"]] = frame["arm"].str.split("/", expand=True)
    means = (
        frame.assign(shuffle=frame["shuffle"].astype(int))
        .groupby(["arm", "seed", "shuffle"])["reward"]
        .mean()
    )
    return {arm: [float(mean) for mean in part] for arm, part in means.groupby(level="arm")}


def _episodes(params: Params) -> pd.DataFrame:
    return load_episodes(params, "episodes")


def load_episodes(params: Params, stage: str) -> pd.DataFrame:
    """The episodes of a stage, of all chains; ``seed`` tells whose."""
    columns = ["arm", "task", "group", "reward", *COSTS]
    paths = {
        chain.seed: read_stage(chain, stage).path / "episodes.parquet"
        for chain in params.each_seed()
    }
    return pd.concat(
        [
            _counted(
                pd.read_parquet(path, columns=[c for c in columns if c in read_schema(path).names])
            ).assign(seed=seed)
            for seed, path in paths.items()
        ],
        ignore_index=True,
    )


def _counted(records: pd.DataFrame) -> pd.DataFrame:
    """Records with a count of unparsable replies; older ones were made without."""
    known = records["unparsable"].fillna(0) if "unparsable" in records else 0
    return records.assign(unparsable=known)


def arm_rows(rows: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """One row an arm: reward and success with intervals, means a task of the costs; ``unparsable_share`` where it is ever above 0."""
    made = []
    for arm, part in rows.groupby("arm", sort=False):
        reward, success = (
            bootstrap_mean(part[c], part["group"], resamples, chains=part["seed"])
            for c in ("reward", "success")
        )
        made.append(
            {
                "arm": arm,
                **_interval("reward", reward),
                **_interval("success", success),
                "tasks": part["task"].nunique(),
                "seeds": part["seed"].nunique(),
                "shuffles": int(part["shuffles"].max()),
                "env_steps": part["env_steps"].mean(),
                "tokens": part["tokens"].mean(),
                "prompt_tokens": part["prompt_tokens"].mean(),
                "refused_share": refused_share(part),
                "unparsable_share": unparsable_share(part),
            }
        )
    table = pd.DataFrame(made)
    return table if table["unparsable_share"].any() else table.drop(columns="unparsable_share")


def gain_rows(rows: pd.DataFrame, resamples: int, against: str = BASE) -> pd.DataFrame:
    """One row an arm: its mean gain over ``against``, paired by task; ``relative`` to the mean of ``against``."""
    records = {arm: part.to_dict("records") for arm, part in rows.groupby("arm", sort=False)}
    gains = compare(records, against, resamples)
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "against": against,
                "gain": g["mean"],
                "low": g["ci95"][0],
                "high": g["ci95"][1],
                "relative": g["relative"],
                "tasks": rows.loc[rows["arm"] == arm, "task"].nunique(),
            }
            for arm, g in gains.items()
        ]
    )


def refused_share(rows: pd.DataFrame) -> float:
    """Share of all draws that were dropped because the environment would refuse them or change nothing."""
    return _share(rows, "refused")


def unparsable_share(rows: pd.DataFrame) -> float:
    """Share of all draws that were replies of a chat model and named no action."""
    return _share(_counted(rows), "unparsable")


def _share(rows: pd.DataFrame, what: str) -> float:
    drawn = rows["refused"].sum() + rows["proposals"].sum()
    return float(rows[what].sum() / drawn) if drawn else 0.0


def gap_closed(means: Mapping[str, float], arm: str = MAIN) -> float | None:
    """(Q-reranked - sample) / (MCTS - sample): the share of the way to searching with the environment."""
    gap = means[BOUND] - means[BASE]
    return float((means[arm] - means[BASE]) / gap) if gap > 0 else None


def seed_table(params: Params) -> pd.DataFrame:
    """One row a chain: mean reward of the main arms, its controls and bound, and the gains relative to its own sample."""
    rows = load_by_task(params)
    arms = [
        arm
        for arm in (BASE, GREEDY, MAIN, "q_n10", "control_q_n5", "control_q_n10", BOUND)
        if arm in set(rows["arm"])
    ]
    table = rows.pivot_table(index="seed", columns="arm", values="reward")[arms]
    for arm in (MAIN, "q_n10"):
        table[f"{arm} relative"] = table[arm] / table[BASE] - 1
    return table.reset_index().rename_axis(columns=None)


def arm_table(params: Params) -> pd.DataFrame:
    """Reward, success, cost of each arm, with the hash of the test tasks."""
    return _stamped(params, arm_rows(load_by_task(params), params.bootstrap))


def gain_table(params: Params, against: str = BASE) -> pd.DataFrame:
    """Paired gain of each arm over ``against``, with the hash of the test tasks.

    The second agent's gain is over that agent's own sample, which says what the Q model adds to it.
    """
    rows = load_by_task(params)
    second = rows["arm"].isin([SECOND, SECOND_Q])
    gains = [gain_rows(rows[~second], params.bootstrap, against)]
    if against == BASE and second.any():
        gains.append(gain_rows(rows[second], params.bootstrap, SECOND))
    table = pd.concat(gains, ignore_index=True)
    rank = {arm: i for i, arm in enumerate(ORDER)}
    return _stamped(
        params,
        table.sort_values("arm", key=lambda arms: arms.map(rank), kind="stable", ignore_index=True),
    )


def uses_table(params: Params) -> pd.DataFrame:
    """Which tasks the run uses for what, with the number of their groups and a hash of their ids."""
    world = pipeline.world(params)
    dealt = pipeline.uses(params, world)
    searched = [
        task
        for one in (*_rounds_before(params), params)
        for task in pipeline.uses(one, world).search
    ]
    shown = {
        "agent": ("demonstrations", dealt.demonstrations),
        "other_agent": ("demonstrations of the second agent", dealt.other_demonstrations),
    }
    used = {
        what: tasks
        for stage, (what, tasks) in shown.items()
        if tasks and "demonstrations" in read_stage(params, stage).facts
    }
    used |= {"search": searched, "test": dealt.test}
    table = pd.DataFrame([pipeline.split_row(name, tasks) for name, tasks in used.items()])
    return table.set_axis(
        ["used for", "tasks", environments.words(params).groups, "hash of ids"], axis=1
    )


def failures(params: Params) -> tuple[pd.DataFrame, str] | None:
    """Where the test episodes of all chains fail, by arm, and what the columns mean; None where the world does not tell."""
    analysis = environments.failures(params)
    if analysis is None:
        return None
    tell, explained = analysis
    frames = [
        pd.read_parquet(
            read_stage(chain, "episodes").path / "episodes.parquet",
            columns=["arm", "task", "actions"],
        )
        for chain in params.each_seed()
    ]
    table = tell(pipeline.world(params), pd.concat(frames, ignore_index=True).to_dict("records"))
    rank = {arm: i for i, arm in enumerate(ORDER)}
    return table.sort_values(
        "arm", key=lambda arms: arms.map(rank), kind="stable", ignore_index=True
    ), explained


def split_table(params: Params) -> pd.DataFrame:
    """Size and id hash of the splits, and of the test tasks that are played."""
    splits = read_stage(params, "data").facts["splits"]
    played = {**read_stage(params, "episodes").facts["test"], "split": "test played"}
    return pd.DataFrame([*splits, played])


def stage_table(params: Params) -> pd.DataFrame:
    """What made the results: each stage's folder, seconds, commits; of every chain and round of collecting."""
    rows = []
    for chain in params.each_seed():
        earlier = [
            (one, stage) for one in _rounds_before(chain) for stage in ("trees", "pairs", "q_model")
        ]
        for one, stage in (*earlier, *((chain, stage) for stage in STAGES)):
            if stage in ("rules", "trial") or not params.has(stage):
                continue
            manifest = read_stage(one, stage).manifest
            rows.append(
                {
                    "stage": stage,
                    "seed": chain.seed,
                    "digest": manifest["digest"],
                    "seconds": manifest["seconds"],
                    "sessions": manifest["sessions"],
                    "finished": manifest["finished"],
                    "commit": ", ".join(
                        dict.fromkeys(map(_commit, (*manifest.get("earlier", ()), manifest)))
                    ),
                }
            )
    return pd.DataFrame(rows)


def _rounds_before(chain: Params) -> list[Params]:
    """The parameters of a chain's earlier rounds of collecting, first round first."""
    return [*_rounds_before(chain.round_before()), chain.round_before()] if chain.rounds > 1 else []


def _commit(made_by: Mapping[str, Any]) -> str:
    """A commit in short, with a plus where the code differed from it."""
    git = made_by.get("git") or {}
    return git.get("commit", "")[:10] + ("+" if git.get("dirty") else "")


def cost(params: Params, rows: pd.DataFrame) -> dict[str, float]:
    """Totals of the run: tokens generated and read, environment steps, seconds; of collecting and of evaluating.

    ``usd``, where a price is given: what servers ask for the replies that the run used, whenever they were paid for.
    """
    trees = pd.DataFrame(
        [{k: t.get(k, 0) for k in COSTS} for chain in params.each_seed() for t in _trees(chain)]
    )
    played = rows[list(COSTS)].mul(rows["shuffles"], axis=0)
    found: dict[str, float] = {}
    for part, frame in (("collecting", trees), ("evaluating", played)):
        found |= {
            f"{part}_{c}": round(float(frame[c].sum()))
            for c in ("tokens", "prompt_tokens", "env_steps")
        }
    stages = (
        stage_table(params)
        .drop_duplicates(["stage", "digest"])
        .groupby("stage", sort=False)["seconds"]
        .sum()
    )
    found |= {
        c: found[f"collecting_{c}"] + found[f"evaluating_{c}"]
        for c in ("tokens", "prompt_tokens", "env_steps")
    }
    if params.api_price_prompt or params.api_price_completion:
        asked = [trees] * is_remote(params.agent) + [
            played[rows["arm"].isin(arms)]
            for arms, name in _sampled_by(params, rows["arm"].unique())
            if is_remote(name)
        ]
        found["usd"] = (
            sum(
                float(frame["prompt_tokens"].sum()) * params.api_price_prompt
                + float(frame["tokens"].sum()) * params.api_price_completion
                for frame in asked
            )
            / 1e6
        )
    return (
        found
        | {f"{stage}_seconds": float(s) for stage, s in stages.items()}
        | {"seconds": round(float(stages.sum()), 1)}
    )


def _sampled_by(params: Params, arms: Sequence[str]) -> list[tuple[list[str], str]]:
    """(arms, the model that is sampled in them); the tuned ones are local."""
    second = [arm for arm in arms if arm in (SECOND, SECOND_Q)]
    return [
        ([arm for arm in arms if arm not in (*second, "tuned_policy", "rft")], params.agent),
        (second, params.other_agent),
    ]


def metrics(params: Params) -> dict[str, Any]:
    """All numbers of the report, as they are written to ``results/<name>/metrics.json``.

    ``arms`` (reward_mean, ci95, success_rate, success_ci95, tasks, seeds and means a task of the costs);
    ``gains`` and ``gains_over_greedy`` (mean, ci95, relative); ``other_agent_gain`` over that agent's own
    sample; ``control_shuffles`` (mean reward of each shuffle); ``gap_closed``; preference accuracy on held-out pairs; splits; ``cost`` in totals.
    """
    rows = load_by_task(params)
    arms = arm_rows(rows, params.bootstrap)
    seeds = [chain.seed for chain in params.each_seed()]
    found = {
        "run": params.name,
        "environment": params.environment,
        "groups": environments.words(params).groups,
        "seed": params.seed,
        "seeds": seeds,
        "digest": params.digest("episodes"),
        "bootstrap": params.bootstrap,
        "arms": {
            row["arm"]: {**_arm_entry(row), "seeds": seeds} for row in arms.to_dict("records")
        },
        "gains": _gain_entries(gain_rows(rows, params.bootstrap, BASE)),
        "gains_over_greedy": _gain_entries(gain_rows(rows, params.bootstrap, GREEDY)),
        "control_shuffles": shuffle_means(params),
        "gap_closed": gap_closed(arms.set_index("arm")["reward"]),
        "gap_closed_n10": gap_closed(arms.set_index("arm")["reward"], "q_n10"),
        "by_seed": seed_table(params).to_dict("records"),
        "refused_share": refused_share(rows[rows["arm"] == BASE]),
        "preferences": preferences(params),
        "splits": split_table(params).to_dict("records"),
        "cost": cost(params, rows),
    }
    second = rows[rows["arm"].isin([SECOND, SECOND_Q])]
    if len(second):
        found["other_agent_gain"] = _gain_entries(gain_rows(second, params.bootstrap, SECOND))[
            SECOND_Q
        ]
    return found


def preferences(params: Params) -> dict[str, Any]:
    """Trees, states compared, ties and pairs of all chains; accuracy over all held-out pairs, each ordered by its own chain's Q model."""
    chains = params.each_seed()
    facts = [read_stage(chain, "q_model").facts for chain in chains]
    held = sum(f["held_out_pairs"] for f in facts)
    right = sum(f["held_out_pairs"] * f["held_out_accuracy"] for f in facts if f["held_out_pairs"])
    depths = Counter(pair.depth for chain in chains for pair in pipeline.load_pairs(chain))
    left_out = {
        key: sum(f.get(key, 0) for f in facts)
        for key in ("dropped_pairs", "dropped_held_out_pairs")
    }
    return {
        **sources(params),
        **(left_out if any(left_out.values()) else {}),
        "pairs": sum(f["pairs"] for f in facts),
        "pairs_by_depth": {str(d): depths[d] for d in sorted(depths)},
        "held_out_pairs": held,
        "held_out_accuracy": right / held if held else None,
        "control_held_out_accuracy": [
            c["held_out_accuracy"]
            for chain in chains
            for c in read_stage(chain, "control").facts["controls"]
        ],
    }


def sources(params: Params) -> dict[str, int]:
    """Of all chains: searched ``trees``, ``tasks`` that give pairs, ``states`` in which actions are compared, ``ties`` of those."""
    found = {"trees": 0, "tasks": 0, "states": 0, "ties": 0}
    for chain in params.each_seed():
        facts = read_stage(chain, "pairs").facts
        made = compared(_trees(chain), chain.min_margin, chain.min_visits)
        for key in found:
            found[key] += made[key] if key in made else facts[key]
    return found


def _trees(params: Params) -> list[dict[str, Any]]:
    """The trees of a chain, of all rounds."""
    return [
        tree
        for one in (*_rounds_before(params), params)
        for tree in read_stage(one, "trees").records("trees")
    ]


def write_metrics(params: Params) -> dict[str, Any]:
    """Write ``metrics.json`` of the run and return what it holds."""
    found = metrics(params)
    write_json(resolve(params.results_dir) / params.name / "metrics.json", found)
    return found


def _interval(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    return {name: found[0], f"{name}_low": found[1], f"{name}_high": found[2]}


def _stamped(params: Params, table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(test_tasks_hash=read_stage(params, "episodes").facts["test"]["ids"])


def _arm_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "reward_mean": row["reward"],
        "ci95": [row["reward_low"], row["reward_high"]],
        "success_rate": row["success"],
        "success_ci95": [row["success_low"], row["success_high"]],
        **{
            k: row[k]
            for k in (
                "tasks",
                "shuffles",
                "env_steps",
                "tokens",
                "prompt_tokens",
                "refused_share",
                "unparsable_share",
            )
            if k in row
        },
    }


def _gain_entries(gains: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {
        row["arm"]: {
            "mean": row["gain"],
            "ci95": [row["low"], row["high"]],
            "relative": None
            if row["relative"] is None or np.isnan(row["relative"])
            else row["relative"],
        }
        for row in gains.to_dict("records")
    }
