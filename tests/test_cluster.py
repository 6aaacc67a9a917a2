"""The whole smoke run on a Ray cluster of two nodes: the tables of one machine, byte for byte."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from clusters import another_node

from qvlib import pipeline
from qvlib.pipeline import grids
from qvlib.pipeline.params import EPISODES, Params, load
from qvlib.report import ablations, numbers, tables
from qvlib.runs.stage import read_stage, stage_path

ROOT = Path(__file__).parents[1]
KILLS = 5
MADE_BEFORE = ("data", "agent", "other_agent")


def parameters(folder: Path, **where: Any) -> Params:
    return load(
        ROOT / "params" / "smoke.yml",
        runs_dir=str(folder / "runs"),
        results_dir=str(folder / "results"),
        wandb_mode="disabled",
        **where,
    )


def on(cluster: Any) -> dict[str, Any]:
    """The cluster: two workers on the driver's node, the third on the other."""
    return {"executor": "ray", "ray_address": cluster.address, "processes": 3}


def run(params: Params) -> dict[str, str]:
    """All stages, rules and the grid; gives the tables as they are written."""
    context = pipeline.until("episodes", params).context
    pipeline.try_rules(context)
    grids.run(context)
    tables.write_tables(context)
    tables.save(params, "pair_rules", ablations.pair_rules(context))
    rules = ablations.rule_table(params)
    tables.save(params, "scoring_rules", rules, ablations.display_rules(rules))
    tables.save(params, "grid", grids.run(context))
    return written(Path(params.run.results_dir))


def written(results: Path) -> dict[str, str]:
    """The tables of the smoke run by name; when and by what stages were made differs, of course."""
    made = (results / "smoke" / "tables").glob("*.csv")
    return {path.name: path.read_text() for path in made if path.name != "stages.csv"}


def check_nothing_is_lost_or_doubled(params: Params) -> None:
    trees = Counter(tree["task"] for tree in read_stage(params, "trees").records("trees"))
    assert len(trees) == params.search.train_tasks
    assert set(trees.values()) == {1}
    for arm in params.arms():
        records = read_stage(params, f"{EPISODES}{arm.name}").records("episodes")
        played = Counter((record["arm"], record["task"]) for record in records)
        assert len(played) == params.evaluation.test_tasks * len(arm.names(params))
        assert set(played.values()) == {1}


@pytest.fixture(scope="module")
def on_two_nodes(ray_cluster, tmp_path_factory):
    """(parameters, tables, seconds, those once the agents are cloned) of an undisturbed run."""
    params = parameters(tmp_path_factory.mktemp("two-nodes"), **on(ray_cluster()))
    with another_node(ray_cluster(), 1):
        begun = time.time()
        made = run(params)
        ended = time.time()
    cloned = stage_path(params, MADE_BEFORE[-1]).stat().st_mtime
    return params, made, ended - begun, ended - cloned


@pytest.mark.slow
def test_the_tables_of_two_nodes_are_those_of_one_machine(on_two_nodes, tmp_path):
    params, made, *_ = on_two_nodes
    assert {"arms.csv", "gains.csv", "grid.csv", "scoring_rules.csv", "pair_rules.csv"} <= set(made)
    assert made == run(parameters(tmp_path, executor="processes"))
    check_nothing_is_lost_or_doubled(params)
    metrics = numbers.metrics(params)
    assert metrics["arms"]["q_n5"]["tasks"] == params.evaluation.test_tasks


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_a_node_that_is_killed_costs_nothing(on_two_nodes, ray_cluster, tmp_path, number):
    """One of the two nodes dies at a random moment; every second run begins with its agents."""
    before, undisturbed, seconds, once_cloned = on_two_nodes
    params = parameters(tmp_path, **on(ray_cluster()))
    if number % 2 == 0:  # cloning is a good part of the run: in these the kill comes after it
        for stage in MADE_BEFORE:
            shutil.copytree(stage_path(before, stage), stage_path(params, stage))
        seconds = once_cloned
    moment = seconds * random.Random(number).uniform(0.05, 0.6)
    with another_node(ray_cluster(), 1) as node:
        kill = threading.Timer(
            moment, ray_cluster().remove_node, args=(node,), kwargs={"allow_graceful": False}
        )
        kill.start()
        try:
            made = run(params)
        finally:
            kill.cancel()
            kill.join()
        assert node not in ray_cluster().worker_nodes, f"ended within {moment:.0f} s, unharmed"
    assert made == undisturbed
    check_nothing_is_lost_or_doubled(params)
