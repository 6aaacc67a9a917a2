"""kill -9 at random moments over collecting, training and evaluating, then the same command.

``python -m tests.campaign`` does the same for longer.
"""

import copy
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from killing import (
    WAYS,
    course,
    differences,
    disturb,
    finished,
    missing,
    outcome,
    repeated,
    tiny,
)

TARGETS = ("agent", "trees", "trees", "q_model", "episodes/greedy", "episodes/search")


@pytest.mark.slow
def test_kills_lose_nothing_repeat_nothing_and_leave_the_same_tables(undisturbed, tmp_path):
    params = tiny(tmp_path)
    found = disturb(params, TARGETS, course(undisturbed), random.Random(0))
    assert len(found.kills) == len(TARGETS)
    assert len({kill.struck for kill in found.kills}) >= 3, (
        "the kills were meant to strike several stages"
    )
    assert len({kill.finished for kill in found.kills}) >= 4, (
        "the kills were meant to come amid finished records"
    )
    assert (found.lost, found.repeated) == (0, 0)
    assert differences(outcome(undisturbed), outcome(params)) == {}


@pytest.mark.slow
def test_a_worker_and_a_kernel_may_be_killed(undisturbed, tmp_path):
    """The run goes on without the worker, and the runner tells of the kernel."""
    workers, notebook = WAYS[1:]
    for way, victims, targets in (
        (workers, ("worker",), ("trees",)),
        (notebook, ("kernel",), ("trees",)),
    ):
        params = tiny(tmp_path / way.name, processes=2)
        for made in Path(undisturbed.run.runs_dir).iterdir():  # the agents are there
            if made.name.startswith(("data", "agent", "other_agent")):
                shutil.copytree(made, Path(params.run.runs_dir) / made.name)
        way = replace(way, victims=victims)
        found = disturb(params, targets, course(undisturbed), random.Random(0), way)
        assert len(found.kills) == len(targets)
        assert victims[0] in {kill.victim for kill in found.kills}  # or they had just ended
        assert (found.lost, found.repeated) == (0, 0)
        assert differences(outcome(undisturbed), outcome(params)) == {}


@pytest.mark.slow
def test_the_check_sees_what_is_lost_repeated_or_changed(undisturbed, tmp_path):
    """The same checks on files that are not as they were: else nothing above could fail."""
    kept = finished(undisturbed)
    name = next(name for name in kept if name.endswith("trees.jsonl"))
    lines = kept[name]
    assert missing(kept, kept) == repeated(kept) == 0
    assert missing(kept, {**kept, name: lines[1:]}) == len(lines)
    assert missing(kept, {**kept, name: [*lines[:-1], b"{}"]}) == 1
    assert repeated({**kept, name: [*lines, lines[0]]}) == 1
    manifest = next(name for name in kept if name.endswith("manifest.json"))
    assert missing(kept, {**kept, manifest: [kept[manifest][0] + b" "]}) == 1
    right = outcome(undisturbed)
    wrong = right["arms"].assign(reward=right["arms"]["reward"] + 1e-3)
    assert list(differences(right, {**right, "arms": wrong})) == ["arms"] and not differences(
        right, right, tolerance=0
    )
    table = "episodes/q_n5/episodes.parquet"
    episodes = right[table].copy(deep=True)
    at = episodes.index[3]
    episodes.at[at, "trace"] = copy.deepcopy(episodes.at[at, "trace"])
    episodes.at[at, "trace"][0]["candidates"][0]["q"] += 1e-6
    found = differences(right, {**right, table: episodes})
    assert list(found) == [table] and "candidates[0].q" in found[table]
    weights = next(name for name in right if name.endswith(".safetensors"))
    assert list(differences(right, {**right, weights: "other"})) == [weights]
    assert list(differences(right, {k: v for k, v in right.items() if k != weights})) == [weights]
    assert Path(undisturbed.run.runs_dir, manifest).is_file() and json.loads(lines[0])["task"]
