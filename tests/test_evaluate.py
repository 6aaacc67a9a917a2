"""Episodes, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from toy import REFUSED, Fixed, Maze, Scripted, Table

from qvlib.core.episodes import (
    best_episode,
    decisions,
    demonstrate,
    episode,
    replay,
    tree_episode,
    visited,
)
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, search
from qvlib.core.reranker import Reranked
from qvlib.core.statistics import bootstrap_mean, compare, mean_interval
from qvlib.core.types import DRAWN
from qvlib.report.intervals import wilson

MAZE = Maze(max_steps=5)
TASKS = MAZE.tasks("test")


def play(agent, maze=MAZE, tasks=TASKS, seed=0, **options):
    return {
        r["task"]: r for r in lockstep((episode(maze, t, seed, **options) for t in tasks), agent, 4)
    }


def test_an_episode_by_hand():
    agent = Fixed(["a"])
    record = play(agent)["test-3"]
    assert record == {
        "task": "test-3",
        "group": "test-1",
        "proposals": 3,
        "tokens": 3,
        "prompt_tokens": 15,
        "refused": 0,
        "unparsable": 0,
        "reward": MAZE.reward(TASKS[3], ("a", "a", "a")),
        "done": True,
        "env_steps": 3,
        "actions": ["a"] * 3,
    }


def test_cut_off_episodes_earn_nothing():
    record = play(Fixed(["loop"]))["test-0"]
    assert (record["reward"], record["done"], record["env_steps"]) == (0.0, False, 5)
    record = play(Fixed([REFUSED]))["test-0"]
    assert (record["reward"], record["env_steps"]) == (0.0, 5)


def test_all_candidates_are_counted_and_traced():
    agent = Reranked(Fixed(["a", "b", "c"]), Table({"a": 0.0, "b": 2.0, "c": 1.0}), 3)
    record = play(agent, trace=True)["test-0"]
    assert (record["proposals"], record["tokens"], record["actions"]) == (9, 9, ["b"] * 3)
    assert [s["observation"] for s in record["trace"]] == ["at start", "at b", "at bb"]
    assert record["trace"][0]["candidates"][1] == {"action": "b", "q": 2.0, "log_prob": -1.0}
    assert record["trace"][0]["action"] == "b" and record["trace"][0]["q"] == 2.0


def test_arms_see_the_same_first_samples():
    """Where reranking keeps the first candidate, the episode is that of plain sampling."""
    plain = play(Scripted())
    first = play(Reranked(Scripted(), None, 5))
    assert [r["actions"] for r in plain.values()] == [r["actions"] for r in first.values()]
    assert play(Scripted()) == plain != play(Scripted(), seed=1)
    traced = play(Reranked(Scripted(), Table({"a": 0, "b": 1, "c": 2}), 5), trace=True)
    for task, record in traced.items():
        assert record["trace"][0]["candidates"][0]["action"] == plain[task]["actions"][0]


def test_the_best_of_several_episodes_begins_with_the_sample_and_pays_for_all():
    trials = [play(Scripted(), trial=k) for k in range(4)]
    best_of = {
        r["task"]: r for r in lockstep((best_episode(MAZE, t, 0, 4) for t in TASKS), Scripted(), 4)
    }
    assert trials[0] == play(Scripted()) != trials[1]
    for task, record in best_of.items():
        assert record["reward"] == max(trial[task]["reward"] for trial in trials)
        assert all(
            record[cost] == sum(trial[task][cost] for trial in trials)
            for cost in (*DRAWN, "env_steps")
        )
        costs = ("env_steps", "tokens", "prompt_tokens")
        for k, (steps, best, tokens) in enumerate(record["trials"], start=1):
            spent = [sum(trial[task][cost] for trial in trials[:k]) for cost in costs]
            assert (steps, tokens) == (spent[0], sum(spent[1:]))
            assert best == max(trial[task]["reward"] for trial in trials[:k])
        assert len(record["trials"]) == 4
    assert sum(r["reward"] for r in best_of.values()) > sum(r["reward"] for r in trials[0].values())


def test_a_search_as_an_episode():
    tree = next(lockstep([search(MAZE, TASKS[0], SearchConfig(60, 6), 0)], Scripted(), 1))
    record = tree_episode(tree)
    assert record["reward"] == tree.root.best_reward == pytest.approx(MAZE.best(TASKS[0]))
    assert record["proposals"] == tree.cost.proposals and record["env_steps"] == tree.cost.env_steps
    assert record.keys() == {*play(Fixed(["a"]))["test-0"], "rises"}


# -- walking again ---------------------------------------------------------------------------


def test_actions_lead_where_they_led():
    task, actions = TASKS[0], ("a", "loop", REFUSED, "c")
    states = visited(MAZE, task, actions)
    assert states[0] == MAZE.reset(task) and len(states) == 5
    assert all(
        MAZE.step(s, a) == after for s, a, after in zip(states, actions, states[1:], strict=False)
    )
    assert replay(MAZE, task, actions) == states[-1] and replay(MAZE, task, ()) == states[0]
    assert decisions(MAZE, task, actions) == list(zip(states[:4], actions, strict=True))


def test_demonstrations_come_in_the_order_of_the_tasks():
    class Hasty(Scripted):
        """In odd tasks it loops until it is cut off, which takes longer."""

        def propose(self, requests):
            last = [int(r.state.task.id[-1]) % 2 for r in requests]
            rows = super().propose(requests)
            return [
                Fixed(["loop"]).propose([r])[0] if odd else row
                for r, row, odd in zip(requests, rows, last, strict=True)
            ]

    jobs = (episode(MAZE, task, 0) for task in TASKS)
    as_they_end = [record["task"] for record in lockstep(jobs, Hasty(), 4)]
    records = demonstrate(MAZE, TASKS, Hasty(), seed=0, width=4)
    assert [record["task"] for record in records] == [task.id for task in TASKS] != as_they_end
    assert records == [demonstrate(MAZE, [task], Hasty(), 0, 1)[0] for task in TASKS]


# -- intervals --------------------------------------------------------------------------------


def test_mean_is_over_tasks_and_interval_over_groups():
    values, groups = [1.0, 1.0, 1.0, 0.0], ["x", "x", "x", "y"]
    mean, low, high = bootstrap_mean(values, groups, 2000)
    assert mean == 0.75 and (low, high) == (0.0, 1.0)  # only xx, xy and yy can be drawn
    assert bootstrap_mean([0.3] * 5, list("abcde"), 500) == pytest.approx((0.3, 0.3, 0.3))
    assert bootstrap_mean(values, groups, 2000) == (mean, low, high)


def test_large_groups_weigh_more():
    groups = [g for i in range(40) for g in [i] * (1 if i % 2 else 9)]
    mean, low, high = bootstrap_mean([float(g % 2) for g in groups], groups, 1000)
    assert mean == pytest.approx(0.1) and 0.03 < low < 0.1 < high < 0.2


@pytest.mark.parametrize("grouped", [True, False])
def test_coverage(grouped):
    """About 95 % of the intervals hold the truth (93 % with 40 groups); fewer without groups."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    hits = 0
    for _ in range(500):
        values = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=200)
        _, low, high = bootstrap_mean(values, groups if grouped else np.arange(200), 400)
        hits += low <= 0 <= high
    assert (450 <= hits <= 490) if grouped else hits < 375


def test_chains_widen_an_interval_by_the_luck_of_training():
    """By hand: three chains 0.1 apart have a standard error of 0.1 / sqrt 3, and t(2) is 4.30."""
    groups, chains = list(range(50)) * 3, [0] * 50 + [1] * 50 + [2] * 50
    alike = [0.5 + 0.1 * (g % 2) for g in groups]
    apart = [v + 0.1 * c for v, c in zip(alike, chains, strict=True)]
    one = bootstrap_mean(alike, groups, 2000)
    assert mean_interval(alike, groups, 2000, chains) == pytest.approx(one, abs=2e-3)
    mean, low, high = mean_interval(apart, groups, 2000, chains)
    assert mean == pytest.approx(one[0] + 0.1)
    assert (high - mean, mean - low) == pytest.approx([4.303 * 0.1 / 3**0.5] * 2, rel=0.05)


def test_the_interval_of_a_share():
    """3 of 4 by hand: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n) with z = 1.96.

    The trials need not be whole: of pairs that depend on each other they are an effective number.
    """
    assert wilson(0.75, 4) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert wilson(0.5, 10**6) == pytest.approx((0.5, 0.5), abs=1e-3)
    assert wilson(0.0, 10)[0] == 0 and 0.5 < wilson(1.0, 10)[0] < wilson(1.0, 10)[1] == 1
    assert wilson(0.5, 5)[0] < wilson(0.5, 5.5)[0] < wilson(0.5, 6)[0]


def test_compare_is_paired_within_a_chain():
    def arm(shift):
        return [
            {"task": f"t{i}", "group": f"g{i}", "seed": s, "reward": 0.1 * s + shift}
            for i in range(9)
            for s in (0, 1)
        ]

    gain = compare({"sample": arm(0.2), "better": arm(0.3)[::-1]}, "sample", 200)["better"]
    assert gain["ci95"] == pytest.approx([0.1, 0.1]) and gain["relative"] == pytest.approx(
        0.1 / 0.25
    )


def test_compare_is_paired():
    rng = np.random.default_rng(0)
    base = rng.random(60)

    def arm(shift):
        return [
            {"task": f"t{i}", "group": f"g{i // 2}", "reward": r + shift}
            for i, r in enumerate(base)
        ]

    gains = compare({"sample": arm(0.0), "better": arm(0.1), "same": arm(0.0)[::-1]}, "sample", 500)
    assert gains.keys() == {"better", "same"}
    assert gains["better"]["mean"] == pytest.approx(0.1)
    assert gains["better"]["ci95"] == pytest.approx(
        [0.1, 0.1]
    )  # paired: the tasks' own spread is gone
    assert gains["better"]["relative"] == pytest.approx(0.1 / base.mean())
    assert gains["same"]["mean"] == 0 and gains["same"]["ci95"] == [0, 0]


def test_no_relative_gain_over_nothing():
    nothing = [{"task": "t", "group": "g", "reward": 0.0}]
    some = [{"task": "t", "group": "g", "reward": 0.5}]
    assert compare({"a": nothing, "b": some}, "a", 100)["b"]["relative"] is None
