"""Trees that others made: what is no tree is named in one line, and the order decides nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from qvlib.base.errors import QvlibError
from qvlib.core.preferences import build_pairs
from qvlib.core.trees import check_tree


def node(name, parent, action, visits=3, value=0.5, **more):
    return {
        "node": name,
        "parent": parent,
        "action": action,
        "visits": visits,
        "value": value,
    } | more


def tree(*nodes, task="task-7"):
    return {"task": task, "nodes": list(nodes)}


ROOT, LEFT, RIGHT = node("r", None, ""), node("a", "r", "left"), node("b", "r", "right", value=0.1)
VALUES = [math.nan, math.inf, None, "0.5", [0.5], True, 2.4, -1.01, 50, 10**400, 1j]
VISITS = [None, "3", [3], 2.5, math.nan, -1, True]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        *((node("b", "r", "right", value=value), "has value = ") for value in VALUES),
        *((node("b", "r", "right", visits=visits), "has visits = ") for visits in VISITS),
        *((node("b", "r", action), "has action = ") for action in (7, None, ["go"], b"go")),
        (node("r", "r", "again"), "has node = 'r', not a name of its own"),
        (node("a", "r", "again"), "has node = 'a', not a name of its own"),
        (node("r", "a", "again"), "not a name of its own"),
        (node("b", "b", "itself"), "has parent = 'b', not a node before it"),
        (node("b", "c", "orphan"), "has parent = 'c', not a node before it"),
        (node("b", ["r"], "listed"), "has parent = ['r'], not a node before it"),
        (node("b", None, "second"), "has parent = None, not a node before it"),
        (node(["b"], "r", "right"), "not a name of its own"),
        (node(None, "r", "right"), "not a name of its own"),
        (node("x" * 9000, "r", "right", value="y" * 9000), "has value = "),
        ({}, "lacks 'node'"),
        (7, "is no mapping"),
        ("text", "is no mapping"),
    ],
)
@pytest.mark.parametrize("rule", ["best_path", "best_value_path", "all_nodes", "all_siblings"])
def test_a_node_that_is_none_is_named_with_its_task(wrong, says, rule):
    with pytest.raises(QvlibError) as caught:
        build_pairs([tree(ROOT, LEFT, wrong, node("z", "r", "last"))], rule)
    message = str(caught.value)
    assert says in message and "task 'task-7'" in message
    assert len(message) <= 300 and "\n" not in message


@pytest.mark.parametrize(
    "wrong",
    [{}, [], None, "tree", {"task": "t"}, {"task": "t", "nodes": {}}, tree(ROOT, task=None)],
)
def test_a_record_that_is_no_tree_is_told(wrong):
    with pytest.raises(QvlibError, match="tree") as caught:
        check_tree(wrong)
    assert len(str(caught.value)) <= 300


def test_what_numpy_and_parquet_write_is_a_tree():
    rows = [ROOT, LEFT, {**RIGHT, "visits": np.int64(2), "value": np.float32(0.25)}]
    (pair,) = build_pairs([tree(*rows)])
    assert (pair.chosen, pair.rejected, pair.margin) == ("left", "right", 0.25)
    numbered = tree(node(0, None, None), node(1, 0, "left"), node(2, 0, "right", value=0))
    assert build_pairs([numbered])[0].node == 0  # a root has no action, and names may be numbers


def test_the_order_of_siblings_decides_no_pair():
    values = {"a": 0.1, "b": 0.9, "c": 0.5}
    siblings = [node(name, "r", name, value=value) for name, value in values.items()]
    made = {
        (pair.chosen, pair.rejected)
        for order in itertools.permutations(siblings)
        for pair in build_pairs([tree(ROOT, *order)])
    }
    assert made == {("b", "a")}


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(
        QvlibError, match="'best_pth'; there are best_path, best_value_path, all_nodes"
    ):
        build_pairs([tree(ROOT, LEFT, RIGHT)], "best_pth")


@pytest.mark.parametrize("reward", [None, math.nan, "1", 7])
def test_the_path_to_the_highest_reward_needs_rewards(reward):
    bare, given = tree(ROOT, LEFT, RIGHT), tree(ROOT, LEFT, {**RIGHT, "reward": reward})
    for record in (bare, given):
        with pytest.raises(QvlibError, match="task 'task-7': pairs of best_path need the terminal"):
            build_pairs([record], "best_path")
    assert len(build_pairs([bare], "best_value_path")) == 1
