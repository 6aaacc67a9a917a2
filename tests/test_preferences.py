"""Pairs from trees, ours and others'."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import Maze, Scripted

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import replay
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, search
from qvlib.core.preferences import (
    Pair,
    accuracy,
    build_pairs,
    compared,
    hold_out,
    kind,
    shuffle_winners,
)
from qvlib.core.trees import tree_record


def node(name, parent, action, visits, value):
    return {"node": name, "parent": parent, "action": action, "visits": visits, "value": value}


def tree(*nodes, task="t"):
    return {"task": task, "nodes": list(nodes)}


BY_HAND = tree(
    node("", None, "", 20, 0.4),
    node("0", "", "left", 9, 0.2),
    node("1", "", "right", 8, 0.6),
    node("2", "", "never", 0, 0.0),
    node("3", "", "once", 1, -1.0),
    node("0.0", "0", "l-low", 4, 0.1),
    node("0.1", "0", "l-high", 4, 0.3),
    node("1.0", "1", "r-same", 3, 0.6),
    node("1.1", "1", "r-too", 4, 0.6),
    node("1.1.0", "1.1", "deep-bad", 2, 0.55),
    node("1.1.1", "1.1", "deep-good", 2, 0.65),
)


def test_states_in_which_actions_tie():
    assert compared([BY_HAND]) == {"states": 4, "ties": 1}  # after right: 0.6 and 0.6
    assert compared([BY_HAND], min_margin=0.15) == {"states": 4, "ties": 2}
    assert compared([BY_HAND, BY_HAND], min_margin=0.25, min_visits=4) == {"states": 4, "ties": 2}
    assert compared([tree(node("", None, "", 1, 0.0), node("0", "", "left", 1, 0.0))]) == {
        "states": 0,
        "ties": 0,
    }


@pytest.mark.parametrize(
    ("action", "verb"),
    [("search[a b]", "search"), ("take knife from table", "take"), ("look", "look"), ("", "")],
)
def test_the_kind_of_an_action(action, verb):
    assert kind(action) == verb


def pairs_by_hand(**options):
    return [(p.path, p.chosen, p.rejected) for p in build_pairs([BY_HAND], **options)]


def test_all_nodes_by_hand():
    assert pairs_by_hand() == [
        ((), "right", "once"),
        (("left",), "l-high", "l-low"),
        (("right", "r-too"), "deep-good", "deep-bad"),
    ]


def test_best_value_path_by_hand():
    """right is best; its children tie in value, and the more visited goes on."""
    assert pairs_by_hand(rule="best_value_path") == [
        ((), "right", "once"),
        (("right", "r-too"), "deep-good", "deep-bad"),
    ]


def test_all_siblings_by_hand():
    pairs = pairs_by_hand(rule="all_siblings", min_margin=0.05)
    assert pairs[:3] == [((), "right", "left"), ((), "left", "once"), ((), "right", "once")]
    assert set(pairs[3:]) == {
        (("left",), "l-high", "l-low"),
        (("right", "r-too"), "deep-good", "deep-bad"),
    }
    assert len(pairs_by_hand(rule="all_siblings", min_margin=0.5)) == 2 and set(
        pairs_by_hand()
    ) <= set(pairs_by_hand(rule="all_siblings"))


def test_every_pair_of_a_node_has_its_own_coin():
    pairs = build_pairs(
        [
            tree(
                node("r", None, "", 40, 0),
                *(node(str(i), "r", f"a{i}", 3, i / 10) for i in range(9)),
            )
        ],
        "all_siblings",
    )
    turned = [p.chosen_value < p.rejected_value for p in shuffle_winners(pairs, 0)]
    assert len(pairs) == 36 and 8 < sum(turned) < 28
    again = [p.chosen_value < p.rejected_value for p in shuffle_winners(pairs, 0, 1)]
    assert again not in (turned, [not t for t in turned])


def test_filters():
    assert pairs_by_hand(min_visits=2) == [
        ((), "right", "left"),
        (("left",), "l-high", "l-low"),
        (("right", "r-too"), "deep-good", "deep-bad"),
    ]
    assert pairs_by_hand(min_visits=3) == [((), "right", "left"), (("left",), "l-high", "l-low")]
    assert pairs_by_hand(min_margin=0.15) == [((), "right", "once"), (("left",), "l-high", "l-low")]
    assert pairs_by_hand(min_margin=1.6) == [((), "right", "once")]
    assert pairs_by_hand(min_margin=1.7) == []


def test_a_pair_tells_where_it_is_from():
    pair = build_pairs([BY_HAND])[2]
    assert pair == Pair("t", "1.1", ("right", "r-too"), "deep-good", "deep-bad", 0.65, 0.55, 2, 2)
    assert pair.depth == 2 and pair.margin == pytest.approx(0.1)
    assert Pair(**pair.record()) == pair


def test_unvisited_siblings_and_single_children_make_no_pair():
    assert (
        build_pairs(
            [
                tree(
                    node("r", None, "", 3, 0),
                    node("a", "r", "a", 3, 1.0),
                    node("b", "r", "b", 0, 0.0),
                )
            ]
        )
        == []
    )


def test_siblings_of_the_same_text_make_no_pair():
    assert (
        build_pairs(
            [
                tree(
                    node("r", None, "", 3, 0),
                    node("a", "r", "x", 3, 1.0),
                    node("b", "r", "x", 3, 0.0),
                )
            ]
        )
        == []
    )


def test_trees_with_other_names_and_extra_keys():
    foreign = tree(
        {**node("root-17", None, "", 5, 0.0), "colour": "red"},
        node("k", "root-17", "go", 2, 0.9),
        node("m", "root-17", "stay", 3, 0.1),
        task="elsewhere",
    )
    for rule in ("best_value_path", "all_nodes"):
        (pair,) = build_pairs([foreign], rule)
        assert (pair.task, pair.node, pair.path, pair.chosen, pair.rejected) == (
            "elsewhere",
            "root-17",
            (),
            "go",
            "stay",
        )


@pytest.mark.parametrize(
    "broken",
    [
        {"task": "t"},
        {"task": "t", "nodes": []},
        {"nodes": [node("", None, "", 1, 0)]},
        tree(node("", None, "", 1, 0), node("0.0", "0", "a", 1, 0)),
        tree(node("0", "", "a", 1, 0), node("", None, "", 1, 0)),
        *(
            tree({k: v for k, v in node("", None, "", 1, 0.0).items() if k != key})
            for key in ("node", "parent", "action", "visits", "value")
        ),
    ],
)
def test_broken_trees_are_named(broken):
    with pytest.raises(QvlibError) as error:
        build_pairs([broken])
    assert "\n" not in str(error.value) and "node" in str(error.value)


def test_paths_rebuild_the_states_of_real_trees():
    maze = Maze()
    tasks = {t.id: t for t in maze.tasks("train")}
    trees = list(
        lockstep([search(maze, t, SearchConfig(40, 4), 0) for t in tasks.values()], Scripted(), 4)
    )
    pairs = build_pairs([tree_record(t) for t in trees])
    assert len(pairs) > 20
    nodes = {(t.task.id, n.id): n for t in trees for n in t.root.walk()}
    for p in pairs:
        here = nodes[p.task, p.node]
        assert replay(maze, tasks[p.task], p.path) == here.state and p.depth == here.depth
        children = {c.action: c for c in here.children if c.visits}
        assert p.chosen_value == children[p.chosen].value == max(c.value for c in children.values())
        assert (
            p.rejected_value
            == children[p.rejected].value
            == min(c.value for c in children.values())
        )
        assert p.margin > 0 and (p.chosen_visits, p.rejected_visits) == (
            children[p.chosen].visits,
            children[p.rejected].visits,
        )
    for rule in ("best_path", "best_value_path"):
        assert set(build_pairs([tree_record(t) for t in trees], rule, min_visits=1)) < set(pairs)


def many(n, tasks=40):
    return [Pair(f"t{i % tasks}", str(i), (), f"w{i}", f"l{i}", 0.9, 0.1, 3, 4) for i in range(n)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_shuffling_keeps_pairs_and_flips_half(seed):
    pairs = many(400)
    shuffled = shuffle_winners(pairs, seed)
    assert Counter(frozenset((p.chosen, p.rejected)) for p in shuffled) == Counter(
        frozenset((p.chosen, p.rejected)) for p in pairs
    )
    flipped = [a != b for a, b in zip(pairs, shuffled, strict=True)]
    assert 150 < sum(flipped) < 250  # 5 standard deviations
    for a, b, f in zip(pairs, shuffled, flipped, strict=True):
        if f:
            assert (b.chosen, b.chosen_value, b.chosen_visits) == (
                a.rejected,
                a.rejected_value,
                a.rejected_visits,
            )
            assert (b.task, b.node, b.path, b.margin) == (a.task, a.node, a.path, -a.margin)
    assert shuffle_winners(pairs, seed) == shuffled != shuffle_winners(pairs, seed + 1)
    for other in (shuffle_winners(pairs, seed, 1), shuffle_winners(pairs, seed, 2)):
        alike = [a == b for a, b in zip(shuffled, other, strict=True)]
        assert 150 < sum(alike) < 250  # independent of the first: neither equal nor opposite


def test_hold_out_splits_by_task():
    pairs = many(400)
    train, held = hold_out(pairs, 0.25, 0)
    assert Counter(train) + Counter(held) == Counter(pairs)
    assert not {p.task for p in train} & {p.task for p in held}
    assert 3 <= len({p.task for p in held}) <= 18
    assert hold_out(reversed(pairs), 0.25, 0) == (train[::-1], held[::-1])
    assert hold_out(pairs, 0.0, 0) == (pairs, [])


def test_accuracy_counts_a_tie_half():
    assert accuracy(np.array([1.0, 0.0, 2.0, 5.0]), np.array([0.0, 1.0, 2.0, 4.0])) == 0.625
    assert np.isnan(accuracy(np.array([]), np.array([])))
