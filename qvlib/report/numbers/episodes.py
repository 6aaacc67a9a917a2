"""The episodes of a run as a table: one row an arm, chain and task."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyarrow.parquet import read_schema

from qvlib.agents.arms import ARMS, Arm
from qvlib.base.errors import QvlibError
from qvlib.core.types import DRAWN
from qvlib.pipeline.params import EPISODES, Params
from qvlib.runs.stage import read_stage

COSTS = ("env_steps", *DRAWN)


def by_task(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, chain (``seed``), ``shuffle`` and task: reward, success and costs.

    Those of a control are the arms ``control_q_n5/0``, ``control_q_n5/1``, ...: here
    ``control_q_n5`` with the shuffles 0, 1, ... Other arms have the shuffle 0.
    ``chain`` is what an interval takes as repetitions: the seed, of a single seed the shuffle, so
    that the interval of a control covers the luck of its coins.

    Raises:
        QvlibError: an arm was played on fewer tasks than others.
    """
    frame = _counted(episodes)[["arm", "task", "group", "reward", *COSTS]].copy()
    frame["seed"] = episodes["seed"] if "seed" in episodes else 0
    frame[["arm", "shuffle"]] = [_variant(name) for name in frame["arm"]]
    frame["success"] = (frame["reward"] >= 1).astype(float)
    frame["chain"] = frame["seed" if frame["seed"].nunique() > 1 else "shuffle"]
    played = frame.groupby(["arm", "shuffle"]).size()
    if played.nunique() > 1:
        raise QvlibError(
            f"arm {played.idxmin()[0]!r} was played on {played.min()} tasks, "
            f"others on {played.max()}; run notebooks/05_evaluate.ipynb again"
        )
    return in_order(frame.sort_values(["arm", "seed", "shuffle", "task"], ignore_index=True))


def _variant(name: str) -> tuple[str, int]:
    """``control_q_n5/3`` -> the arm and its shuffle."""
    arm, _, shuffle = name.partition("/")
    return arm, int(shuffle or 0)


def in_order(rows: pd.DataFrame, arms: Sequence[Arm] = ARMS) -> pd.DataFrame:
    """Rows in the order in which arms are told; an arm that has no place comes last."""
    place = {arm.name: i for i, arm in enumerate(arms)}
    return rows.sort_values(
        "arm",
        key=lambda names: names.map(lambda name: place.get(name, len(place))),
        kind="stable",
        ignore_index=True,
    )


def load_by_task(params: Params) -> pd.DataFrame:
    """``by_task`` of the run's episodes."""
    return in_order(by_task(test_episodes(params)), params.arms())


def test_episodes(params: Params, *more: str) -> pd.DataFrame:
    """The episodes of all arms on the test tasks; ``more``: further columns."""
    stages = [f"{EPISODES}{arm.name}" for arm in params.arms()]
    tables = [load_episodes(params, stage, *more) for stage in stages]
    return pd.concat(tables, ignore_index=True)


def shuffle_means(params: Params) -> dict[str, list[float]]:
    """Mean reward of each shuffle of each control, chain by chain.

    So one sees how much the luck of the coins decides.
    """
    frame = load_by_task(params)
    frame = frame[frame["arm"].str.startswith("control")]
    means = frame.groupby(["arm", "seed", "shuffle"])["reward"].mean()
    return {arm: [float(mean) for mean in part] for arm, part in means.groupby(level="arm")}


def load_episodes(params: Params, stage: str, *more: str) -> pd.DataFrame:
    """The episodes of a stage, of all chains; ``seed`` tells whose. ``more``: further columns."""
    columns = ["arm", "task", "group", "reward", *COSTS, *more]
    paths = {
        chain.run.seed: read_stage(chain, stage).path / "episodes.parquet"
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


def refused_share(rows: pd.DataFrame) -> float:
    """Share of all draws that were dropped.

    Because the environment would refuse them or change nothing.
    """
    return _share(rows, "refused")


def unparsable_share(rows: pd.DataFrame) -> float:
    """Share of all draws that were replies of a chat model and named no action."""
    return _share(_counted(rows), "unparsable")


def _share(rows: pd.DataFrame, what: str) -> float:
    drawn = rows["refused"].sum() + rows["proposals"].sum()
    return float(rows[what].sum() / drawn) if drawn else 0.0


def _counted(records: pd.DataFrame) -> pd.DataFrame:
    """Records with a count of unparsable replies; older ones were made without."""
    known = records["unparsable"].fillna(0) if "unparsable" in records else 0
    return records.assign(unparsable=known)
