"""Backups of trees that are known whole, and the control that deals their values anew."""

from __future__ import annotations

import numpy as np
import pytest
from toy import Maze, Scripted

from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, search
from qvlib.core.step_values import (
    Trajectory,
    advantages,
    backed_up,
    found,
    outcomes,
    shares,
    siblings,
    trajectories,
    weigher,
)
from qvlib.core.trees import paths, tree_record
from qvlib.estimators.dealing import dealt, dealt_ends, dealt_values
from qvlib.estimators.trajectories import best_and_worst


def row(node, value, visits=1, reward=0.0, terminal=False):
    parent = None if node == "" else node.rpartition(".")[0]
    return {
        "node": node,
        "parent": parent,
        "action": node.rpartition(".")[2],
        "visits": visits,
        "value": value,
        "value_sum": value * visits,
        "reward": reward,
        "terminal": terminal,
        "best_reward": 0.0,
    }


TREE = {
    "task": "t",
    "best_actions": ["a", "x"],
    "nodes": [
        row("", 0.4, 6),
        row("a", 0.5, 3),
        row("b", 0.3, 2),
        row("c", 0.0, 0),
        row("a.x", 1.0, 1, 1.0, True),
        row("a.y", -0.5, 1),
        row("b.x", 0.6, 1, 0.6, True),
    ],
}


def test_mean_is_what_the_search_counted():
    assert backed_up(TREE) == {"": 0.4, "a": 0.5, "b": 0.3, "a.x": 1.0, "a.y": -0.5, "b.x": 0.6}


def test_max_takes_the_best_child_and_discounts_what_is_gained():
    values = backed_up(TREE, "max", discount=0.9)
    assert values["a"] == pytest.approx(0.9)
    assert values["b"] == pytest.approx(0.54)
    assert values[""] == pytest.approx(0.81)


def test_uniform_is_the_mean_of_children_and_sweeps_are_greedy_steps():
    even = backed_up(TREE, "uniform", discount=0.5)
    assert even["a"] == pytest.approx((0.5 - 0.5) / 2)  # a penalty is no smaller for being far
    assert even[""] == pytest.approx((0.0 + 0.5 * 0.3) / 2)
    once = backed_up(TREE, "uniform", discount=0.5, sweeps=1)
    assert once["a"] == pytest.approx(0.5)  # the best child by its even value
    assert once[""] == pytest.approx(0.15)  # the better of 0.0 and 0.3, a step away
    assert backed_up(TREE, "uniform", sweeps=2) == pytest.approx(backed_up(TREE, "max"))


def test_siblings_are_the_visited_actions_of_a_state():
    groups = {group.node: group for group in siblings(TREE, backed_up(TREE))}
    assert set(groups) == {"", "a", "b"}
    assert groups[""].actions == ("a", "b") and groups[""].values == (0.5, 0.3)
    assert groups["a"].path == ("a",) and groups["a"].visits == (1, 1)
    assert advantages(groups["a"]) == (0.75, -0.75)


def test_actions_are_shared_out_as_they_were_visited_or_drawn():
    drawn = {**TREE, "nodes": [node | {"samples": 4} for node in TREE["nodes"][:2]]}
    drawn["nodes"] += TREE["nodes"][2:]  # which do not say: once each
    first = next(siblings(drawn, backed_up(drawn)))
    assert first.samples == (4, 1)
    assert shares(first, "visits") == (0.6, 0.4)
    assert shares(first, "samples") == (0.8, 0.2)
    assert shares(first, "even") == (0.5, 0.5)


def test_trajectories_end_where_nothing_below_was_visited():
    ended = {**TREE, "nodes": [*TREE["nodes"][:6], row("b.x", -1.0, 1, 0.6, True)]}
    assert found(ended)["b.x"] == 0.6 and found(ended)["a.y"] == -0.5
    assert list(trajectories(ended)) == [
        Trajectory("t", ("a", "x"), 1.0, 1),
        Trajectory("t", ("a", "y"), -0.5, 1),
        Trajectory("t", ("b", "x"), 0.6, 1),
    ]


def test_dealing_keeps_what_siblings_have_together_and_moves_what_is_below():
    seen = set()
    for shuffle in range(8):
        control = dealt(TREE, 0, shuffle)
        nodes = {row["node"]: row for row in control["nodes"]}
        assert sorted(nodes[n]["value"] for n in ("a", "b")) == [0.3, 0.5]
        by = nodes["a"]["value"] - 0.5
        below = sorted(nodes[n]["value"] for n in ("a.x", "a.y"))
        assert below == pytest.approx([-0.5 + by, min(1.0, 1.0 + by)])
        assert nodes["b.x"]["value"] == pytest.approx(0.6 - by)
        assert nodes["b.x"]["reward"] == pytest.approx(0.6 - by)
        assert nodes["c"] == {**row("c", 0.0, 0), "best_reward": 0.0}
        assert control["best_actions"] == []
        ends = [nodes[n]["reward"] for n in ("a.x", "b.x")]
        assert nodes[""]["best_reward"] == max(ends)
        assert control == dealt(TREE, 0, shuffle)
        seen.add(tuple(nodes[n]["value"] for n in ("a", "a.x")))
    assert len(seen) > 2
    assert TREE["best_actions"] and TREE["nodes"][1]["value"] == 0.5


def test_after_dealing_nothing_below_an_action_tells_its_value():
    """Over many shuffles the dealt values of an action, and below it, are its siblings' mean."""
    controls = [dealt(TREE, 1, shuffle)["nodes"] for shuffle in range(400)]
    a, below = (np.mean([nodes[i]["value"] for nodes in controls]) for i in (1, 5))
    assert a == pytest.approx(0.4, abs=0.02)
    assert below == pytest.approx(0.25 - 0.1, abs=0.1)  # of its siblings, less what a gave away


@pytest.fixture(scope="module")
def searched():
    """Trees of a deep maze with few rewards, as the search makes them."""
    maze = Maze(depth=4, max_steps=5)
    config = SearchConfig(iterations=30, expand_n=5, exploration=0.5)
    jobs = [search(maze, task, config, 0) for s in ("train", "dev") for task in maze.tasks(s)]
    return [tree_record(tree) for tree in lockstep(jobs, Scripted(), 8)]


@pytest.fixture(scope="module")
def discounted():
    """The same with the discount factor of the search that runs have."""
    maze = Maze(depth=4, max_steps=5)
    config = SearchConfig(iterations=30, expand_n=5, exploration=0.5, discount=0.95)
    jobs = [search(maze, task, config, 0) for s in ("train", "dev") for task in maze.tasks(s)]
    return [tree_record(tree) for tree in lockstep(jobs, Scripted(), 8)]


RULES = {"mean": {}, "max": {"discount": 0.9}, "uniform": {"sweeps": 1}}


@pytest.mark.parametrize("rule", RULES)
def test_a_control_is_dealt_by_the_rule_whose_values_are_fitted(searched, rule):
    """What a state's actions are worth on the mean over deals says nothing of what they were."""

    def values(tree):
        return backed_up(tree, rule, **RULES[rule])

    by_values, by_mean, true = [], [], []
    for tree in searched:
        known = {g.node: advantages(g) for g in siblings(tree, values(tree))}
        ways = [dealt_values(tree, values(tree), 0, k) for k in range(40)]
        others = [dealt(tree, 0, k) for k in range(40)]
        for of, controls in (
            (by_values, [siblings(tree, way) for way in ways]),
            (by_mean, [siblings(other, values(other)) for other in others]),
        ):
            told = [{g.node: advantages(g) for g in control} for control in controls]
            of += [np.mean([t[node] for t in told], axis=0) for node in known]
        true += list(known.values())
    true, by_values, by_mean = map(np.concatenate, (true, by_values, by_mean))
    slope = np.polyfit(true, by_values, 1)[0]
    assert abs(slope) < 0.08, slope
    if rule == "max":  # the reason for dealing values, not trees
        assert np.polyfit(true, by_mean, 1)[0] > 0.15


def children(tree):
    below = {}
    for row in tree["nodes"]:
        if row["visits"]:
            below.setdefault(row["parent"], []).append(row)
    return below


def bellman(tree, ends, weight, discount):
    """The fixed point of temporal differences, ``td.backup``, by node; ends: of leaves."""
    below, q = children(tree), {}
    for row in reversed([row for row in tree["nodes"] if row["visits"]]):
        if row["node"] not in below:
            q[row["node"]] = ends[row["node"]]
            continue
        weights = [weight(child) for child in below[row["node"]]]
        worth = [q[child["node"]] for child in below[row["node"]]]
        q[row["node"]] = discount * np.average(worth, weights=weights)
    return q


def of_trajectories(tree, ends):
    """What the trajectories through a node ended with on the mean, as OREO's without beta."""
    node = {path: node for node, path in paths(tree).items()}
    told = {}
    for way in trajectories(tree, ends):
        for depth in range(len(way.actions) + 1):
            told.setdefault(node[way.actions[:depth]], []).append((way.value, way.visits))
    means = {}
    for at, ways in told.items():
        values, visits = zip(*ways, strict=True)
        means[at] = np.average(values, weights=visits)
    return means


FROM_ENDS = {  # what ends are worth, how actions are weighed, the discount factor; the target
    "digi_q": (found, "visits", 0.95, bellman),
    "archer": (found, "samples", 0.9, bellman),
    "oreo": (outcomes, "visits", 1.0, lambda tree, ends, *_: of_trajectories(tree, ends)),
}


@pytest.mark.parametrize("name", FROM_ENDS)
def test_controls_of_what_is_backed_up_from_ends_tell_next_to_nothing(discounted, name):
    """Dealt by the mean backup their targets would keep a share of what actions were worth."""
    ends, by, left, target = FROM_ENDS[name]

    def kept(tree, leaves):
        known = target(tree, leaves, weigher(by), left)
        return [advantages(group) for group in siblings(tree, known)]

    told, own, mean = [], [], []
    for tree in discounted:
        deals = [dealt_ends(tree, ends(tree), weigher(by), left, 0, k) for k in range(40)]
        controls = [kept(tree, leaves) for leaves in deals]
        told += [np.mean(group, axis=0) for group in zip(*controls, strict=True)]
        own += kept(tree, ends(tree))
        mean += [advantages(g) for g in siblings(tree, backed_up(tree))]
    told, own, mean = map(np.concatenate, (told, own, mean))
    assert np.polyfit(mean, own, 1)[0] > 0.5
    assert abs(np.polyfit(own, told, 1)[0]) < 0.05
    assert abs(np.polyfit(mean, told, 1)[0]) < 0.05


def test_ends_are_dealt_so_that_each_state_has_what_its_siblings_had():
    """By hand: two actions of weights 1, a discount factor of one half, ends a step below."""
    nodes = [row("", 0.0, 4), row("a", 0.0, 2), row("b", 0.0, 2)]
    nodes += [row("a.x", 0.8, 1, 0.8, True), row("b.x", 0.4, 1, 0.4, True)]
    tree, seen = {"task": "t", "nodes": nodes}, set()
    for shuffle in range(8):
        ends = dealt_ends(tree, found(tree), weigher("visits"), 0.5, 0, shuffle)
        known = bellman(tree, ends, weigher("visits"), 0.5)
        assert sorted(known[n] for n in "ab") == pytest.approx([0.2, 0.4])
        seen.add(round(known["a"], 9))
    assert seen == {0.2, 0.4}


def best_less_worst(tree):
    """1 on the best trajectory alone, -1 on the worst alone, as trajectory DPO compares them."""
    both = best_and_worst(tree, 5)
    way = paths(tree)
    on = [[t[: len(way[node])] == way[node] for t in both or ()] for node in way]
    return {node: float(s[0]) - s[1] if s else 0.0 for node, s in zip(way, on, strict=True)}


TARGETS = {
    "pqm": lambda tree: {node: float(value > 0.5) for node, value in backed_up(tree).items()},
    "trajectory_dpo": best_less_worst,
}


@pytest.mark.parametrize("name", TARGETS)
def test_controls_of_estimators_that_read_whole_trees_tell_next_to_nothing(searched, name):
    """They are dealt by the mean backup: what is left of their own targets, and of its values."""
    told, own, mean = [], [], []
    for tree in searched:
        deals = [dealt(tree, 0, k) for k in range(40)]
        controls = [[advantages(g) for g in siblings(d, TARGETS[name](d))] for d in deals]
        told += [np.mean(group, axis=0) for group in zip(*controls, strict=True)]
        own += [advantages(g) for g in siblings(tree, TARGETS[name](tree))]
        mean += [advantages(g) for g in siblings(tree, backed_up(tree))]
    told, own, mean = map(np.concatenate, (told, own, mean))
    assert np.polyfit(mean, own, 1)[0] > 0.5
    assert abs(np.polyfit(own, told, 1)[0]) < 0.12  # trajectory_dpo: about 0.10
    assert abs(np.polyfit(mean, told, 1)[0]) < 0.05
