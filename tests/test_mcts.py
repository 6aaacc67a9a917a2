"""Search against known values, kept trees, and what must hold in every tree."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import REFUSED, Fixed, Maze, Scripted

from qvlib.agents.search_rules import published_uct
from qvlib.core.episodes import replay
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import (
    Evaluation,
    Node,
    SearchConfig,
    backup,
    search,
    uct,
    uct_select,
)
from qvlib.core.trees import best_trajectory, tree_record
from qvlib.core.types import Cost, Request, State, Task

GOLDEN = Path(__file__).parent / "golden"
TASK = Task("train-0", "go", "train-0")


BARE = {"stream": ""}  # the keys of collecting, which the kept trees are drawn by


def grow(maze, agent, config, seed=0, task=TASK, **rules):
    return next(lockstep([search(maze, task, config, seed, **BARE, **rules)], agent, 1))


# -- values -----------------------------------------------------------------------------------


def test_root_finds_the_best_action_and_its_value():
    gaps = {60: [], 400: [], 3000: []}
    for seed in range(6):
        maze = Maze(seed=seed, levels=10)
        best = {a: maze.best(TASK, (a,)) for a in maze.choices}
        for iterations, gap in gaps.items():
            tree = grow(maze, Scripted(), SearchConfig(iterations, 12, 0.5, stop_at_success=False))
            assert {c.action for c in tree.root.children} == set(maze.choices)
            top = max(tree.root.children, key=lambda c: c.visits)
            gap.append(abs(top.value - max(best.values())))
        assert best[top.action] == max(best.values())
        assert gap[-1] < 0.05
        node, world = tree.root, ()
        while node.children:  # down the line it plays, every Q value is the exact one
            node = max(node.children, key=lambda c: c.visits)
            world = (*world, node.action)
            assert node.value == pytest.approx(maze.best(TASK, world), abs=0.05)
        assert node.state.done and maze.reward(TASK, world) == maze.best(TASK)
    means = [sum(g) / len(g) for g in gaps.values()]
    assert means[0] > 2 * means[1] > 4 * means[2]


def test_without_preference_values_are_those_of_the_rollout_policy():
    """With an endless exploration constant the mean is the random policy's value."""
    maze = Maze(seed=3, levels=20)
    tree = grow(maze, Scripted(), SearchConfig(4000, 12, 1e6, stop_at_success=False))
    for child in tree.root.children:
        assert child.value == pytest.approx(maze.uniform(TASK, (child.action,)), abs=0.03)
        for grandchild in child.children:
            assert grandchild.value == pytest.approx(
                maze.uniform(TASK, (child.action, grandchild.action)), abs=0.03
            )


def test_a_terminal_node_has_exactly_its_reward():
    maze = Maze(depth=1)
    tree = grow(maze, Scripted(), SearchConfig(30, 12))
    assert {c.action: c.value for c in tree.root.children} == {
        a: pytest.approx(maze.reward(TASK, (a,))) for a in "abc"
    }


def test_refused_actions_get_their_value_and_no_children():
    tree = grow(Maze(), Scripted(("a", REFUSED)), SearchConfig(40, 6))
    refused = [n for n in tree.root.walk() if n.action == REFUSED]
    assert refused and all(n.value == -1 or not n.visits for n in refused)
    assert all(not n.children and not n.state.valid for n in refused)
    assert any(n.visits > 1 for n in refused)


def test_running_out_of_steps_has_its_value():
    tree = grow(Maze(max_steps=2), Fixed(["loop"]), SearchConfig(5, 1))
    assert [n.state.depth for n in tree.root.walk()] == [0, 1, 2]
    assert all(n.value == -0.5 for n in tree.root.walk())
    deepest = list(tree.root.walk())[-1]
    assert (
        deepest.visits == 4 and not deepest.children
    )  # rolled out from depth 1 once, then selected
    tree = grow(Maze(max_steps=2, timeout_value=-0.25), Fixed(["loop"]), SearchConfig(5, 1))
    assert tree.root.value == -0.25


def test_stops_at_success_only_when_asked():
    maze = Maze(depth=1, choices=("a", "b"), levels=5)
    sure = type("Sure", (Maze,), {"reward": lambda self, task, world: float(world[0] == "b")})(
        depth=1, choices=("a", "b")
    )
    assert grow(sure, Fixed(["a", "b"]), SearchConfig(30, 2)).iterations == 2
    assert (
        grow(sure, Fixed(["a", "b"]), SearchConfig(30, 2, stop_at_success=False)).iterations == 30
    )
    assert grow(maze, Fixed(["a", "b"]), SearchConfig(30, 2)).iterations == 30
    # a success inside a rollout is no node of the tree
    deep = type("Deep", (Maze,), {"reward": lambda self, task, world: 1.0})(depth=3, choices=("a",))
    tree = grow(deep, Fixed(["a"]), SearchConfig(30, 1))
    assert tree.iterations == 3 and tree.root.best_reward == 1


def test_the_best_trajectory_of_a_record():
    def node(name, parent, action, reward=0.0, terminal=False):
        return {
            "node": name,
            "parent": parent,
            "action": action,
            "reward": reward,
            "terminal": terminal,
            "best_reward": 0.8,
        }

    root, a = node("", None, ""), node("0", "", "a")
    ends = [
        node("0.0", "0", "b", 0.7, True),
        node("0.1", "0", "c", 0.7, True),
        node("1", "", "d", 0.5, True),
    ]
    older = {"nodes": [root, a, *ends]}
    assert best_trajectory(older) == (0.7, ("a", "b"))  # the first by node
    assert best_trajectory({"nodes": [root, a, *ends[:2], {**ends[2], "reward": 0.7}]}) == (
        0.7,
        ("d",),
    )  # the shortest
    assert best_trajectory({**older, "best_actions": ["a", "e", "f"]}) == (
        0.8,
        ("a", "e", "f"),
    )  # of a rollout
    assert best_trajectory({"nodes": [{**root, "best_reward": 0.0}, a], "best_actions": []}) is None


def test_costs_are_counted():
    agent = Scripted()
    tree = grow(Maze(), agent, SearchConfig(7, 4))
    asked = sum(r.n for call in agent.calls for r in call)
    assert tree.cost.proposals == asked and tree.cost.tokens == 2 * asked
    assert tree.cost.prompt_tokens == 7 * sum(len(call) for call in agent.calls)
    expansions = sum(bool(n.children) for n in tree.root.walk())
    rollouts = asked - 4 * expansions
    assert tree.cost.env_steps == rollouts + sum(len(n.children) for n in tree.root.walk())


# -- the formula ------------------------------------------------------------------------------


def _node(visits, value_sum, children=()):
    node = Node("", State(TASK, ""), visits=visits, value_sum=value_sum)
    node.children = list(children)
    return node


def test_uct_by_hand_and_as_published():
    often, seldom = _node(16, 12.8), _node(4, 2.0)  # means 0.8 and 0.5
    parent = _node(20, 14.8, [often, seldom])
    assert uct(often, parent, 0.5) == pytest.approx(0.8 + 0.5 * math.sqrt(math.log(20) / 16))
    assert uct(_node(0, 0), parent, 0.5) == published_uct(_node(0, 0), parent, 0.5) == math.inf
    assert uct_select(0.1)(parent) is often
    assert published_uct(often, parent, 0.1) == pytest.approx(
        0.8 / 16 + 0.1 * math.sqrt(math.log(20) / 16)
    )
    # exploitation has faded: 0.05 against 0.125
    assert uct_select(0.1, published_uct)(parent) is seldom


def test_discounted_backup_by_hand():
    root = Node("", State(TASK, ""))
    child = Node("0", State(TASK, ""), root, "a")
    grandchild = Node("0.0", State(TASK, ""), child, "b")
    backup(grandchild, 0.8, 0.8, discount=0.5)
    assert (grandchild.value, child.value, root.value) == (
        0.8,
        0.4,
        0.2,
    ) and root.best_reward == 0.8
    backup(child, -0.5, 0.0, discount=0.5)  # a penalty is no smaller for being far
    assert (child.value_sum, root.value_sum) == (0.4 - 0.5, 0.2 - 0.5)


def test_putting_off_the_end_costs_with_a_discount_only():
    """`loop` leads nowhere: without a discount it is worth what ending at once is worth."""
    mazes = (Maze(depth=1, choices=("a",), max_steps=4, seed=seed) for seed in range(99))
    maze, agent = next(m for m in mazes if m.reward(TASK, ("a",))), Fixed(["a", "loop"])
    for discount, same in ((1.0, True), (0.9, False)):
        tree = grow(maze, agent, SearchConfig(2, 2, 0.0, stop_at_success=False, discount=discount))
        end, loop = tree.root.children
        reward = maze.reward(TASK, ("a",))
        assert end.value == reward > 0 and loop.visits == 1
        assert loop.value == pytest.approx(reward * discount) and (loop.value == end.value) is same


def test_unvisited_children_go_first_in_order():
    first, second = _node(0, 0), _node(0, 0)
    assert uct_select(math.sqrt(2))(_node(9, 9, [_node(9, 9), first, second])) is first


def test_backup_reaches_the_root_once():
    root = Node("", State(TASK, ""))
    child = Node("0", State(TASK, ""), root)
    backup(child, -0.5, 0.0)
    backup(child, 1.0, 1.0)
    assert (
        (root.visits, root.value, root.best_reward)
        == (child.visits, child.value, child.best_reward)
        == (2, 0.25, 1.0)
    )


def test_a_rerooted_search_goes_deeper_and_stays_below_the_best_child():
    maze = Maze(depth=4, max_steps=5)
    plain, rerooted = (
        grow(maze, Scripted(), SearchConfig(24, 3, stop_at_success=False, reroot_after=after))
        for after in (0, 8)
    )

    def mean_depth(tree):
        visited = [node for node in tree.root.walk() if node.visits]
        return sum(node.depth for node in visited) / len(visited)

    assert mean_depth(rerooted) > mean_depth(plain) and rerooted.root.visits == 24
    first = grow(maze, Scripted(), SearchConfig(8, 3, stop_at_success=False))
    best = max(first.root.children, key=lambda child: (child.value, child.visits))
    grown = {c.id: c.visits for c in rerooted.root.children}
    assert {c.id for c in first.root.children if c.visits != grown[c.id]} == {best.id}


# -- other rules --------------------------------------------------------------------------------


def test_values_come_from_what_is_handed_in_and_only_where_there_is_something_to_find_out():
    """An evaluation asks as it likes, its draws are keyed by what it is given, its cost is paid."""
    maze, agent, judged = Maze(max_steps=3), Scripted(("a", "b", "loop", REFUSED)), []

    def judge(leaf, key):
        judged.append(leaf)
        drawn = yield Request(leaf.state, 2, (*key[:2], f"{key[2]}/judge"))
        assert len(drawn) == 2
        return Evaluation(len(leaf.id) / 100, leaf.state, Cost(tokens=1000))

    tree = grow(maze, agent, SearchConfig(30, 4, stop_at_success=False), evaluate=judge)
    asked = [request for call in agent.calls for request in call]
    assert len(judged) == sum(r.key[2].endswith("/judge") for r in asked)
    assert len({r.key for r in asked}) == len(asked) and {r.key[:2] for r in asked} == {
        (0, TASK.id)
    }
    assert all(n.state.valid and not n.state.done and n.depth < 3 for n in judged)
    settled = {n.id for n in tree.root.walk() if n.visits} - {n.id for n in judged} - {""}
    nodes = {n.id: n for n in tree.root.walk()}
    for name in settled:
        node = nodes[name]
        expected = -1 if not node.state.valid else node.state.reward if node.state.done else -0.5
        assert node.value == pytest.approx(expected)
    assert settled and judged and len(judged) + sum(nodes[n].visits for n in settled) == 30
    expansions = sum(bool(n.children) for n in nodes.values())
    assert tree.cost == Cost(
        proposals=4 * expansions,
        tokens=1000 * len(judged) + 2 * 4 * expansions,
        prompt_tokens=7 * expansions,
        env_steps=len(nodes) - 1,
    )


def test_leaves_come_from_what_is_handed_in():
    def last(top):
        while top.children:
            top = top.children[-1]
        return top

    tree = grow(Maze(), Fixed(["a", "loop"]), SearchConfig(9, 2), select=last)
    assert {n.id for n in tree.root.walk()} <= {"", "0", "1", "1.0", "1.1", "1.1.0", "1.1.1"} | {
        "1.1.1.0",
        "1.1.1.1",
    }
    assert tree.root.children[0].visits == 1 and tree.root.children[1].visits == 8


# -- what holds in every tree -----------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    iterations=st.integers(1, 60),
    expand=st.integers(1, 6),
    c=st.floats(0, 3),
    rule=st.sampled_from([uct, published_uct]),
    stop=st.booleans(),
    max_steps=st.integers(1, 4),
    actions=st.lists(st.sampled_from(["a", "b", "c", "loop", REFUSED]), min_size=1, max_size=5),
    reroot=st.integers(0, 20),
)
def test_invariants(seed, iterations, expand, c, rule, stop, max_steps, actions, reroot):
    maze = Maze(seed=seed, max_steps=max_steps)
    config = SearchConfig(iterations, expand, stop_at_success=stop, reroot_after=reroot)
    tree = grow(maze, Scripted(actions), config, seed, select=uct_select(c, rule))
    assert tree.root.visits == tree.iterations <= iterations
    for node in tree.root.walk():
        below = sum(child.visits for child in node.children)
        # A node is evaluated itself once, before it is expanded; the root never is.
        if node.children:
            assert node.visits == below + (node is not tree.root)
        assert -1 <= node.value <= 1
        assert 0 <= node.best_reward <= 1
        assert node.best_reward >= max((ch.best_reward for ch in node.children), default=0)
        assert node.depth == node.state.depth <= max_steps
        assert sum(ch.samples for ch in node.children) in (0, expand)
        assert len({ch.action for ch in node.children}) == len(node.children)
        for i, child in enumerate(node.children):
            assert child.parent is node
            assert child.id == (f"{node.id}.{i}" if node.id else str(i))
            assert child.state == maze.step(node.state, child.action)  # and so no state was changed
        if node.state.done or not node.state.valid or node.state.depth >= max_steps:
            assert not node.children
    assert tree.root.state == maze.reset(TASK)
    end = replay(maze, TASK, tree.best_actions)
    assert end.reward == tree.root.best_reward and end.done == bool(tree.best_actions)
    trajectory = best_trajectory(tree_record(tree))
    assert (trajectory is not None) == end.done
    if trajectory is not None:
        reward, actions = trajectory
        again = replay(maze, TASK, actions)
        assert again.done and again.reward == reward == end.reward
    rows = tree_record(tree)["nodes"]
    assert [r["node"] for r in rows] == [n.id for n in tree.root.walk()]
    json.dumps(rows)


@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 9), seed=st.integers(0, 50))
def test_a_tree_is_the_same_alone_and_in_company(width, seed):
    maze, config = Maze(), SearchConfig(12, 3)
    tasks = maze.tasks("train")
    alone = {t.id: tree_record(grow(maze, Scripted(), config, seed, t)) for t in tasks}
    together = lockstep([search(maze, t, config, seed, **BARE) for t in tasks], Scripted(), width)
    assert {tree.task.id: tree_record(tree) for tree in together} == alone


# -- kept trees -------------------------------------------------------------------------------

CASES = {
    "plain": (Maze(), Scripted(), SearchConfig(24, 3), None),
    "refused_and_cut_off": (
        Maze(max_steps=3),
        Scripted(("a", "b", "loop", REFUSED)),
        SearchConfig(20, 4),
        None,
    ),
    "published_code": (
        Maze(seed=5),
        Scripted(),
        SearchConfig(24, 3),
        uct_select(math.sqrt(2), published_uct),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_kept_trees(name):
    """Set QVLIB_REGENERATE=1 to write the trees anew; read the difference before committing it."""
    maze, agent, config, select = CASES[name]
    made = tree_record(grow(maze, agent, config, select=select))
    made["nodes"] = [
        {
            k: row[k]
            for k in (
                "node",
                "action",
                "visits",
                "value_sum",
                "reward",
                "valid",
                "samples",
                "best_reward",
            )
        }
        for row in made["nodes"]
    ]
    file = GOLDEN / f"tree_{name}.json"
    if os.environ.get("QVLIB_REGENERATE"):
        head, nodes = {k: v for k, v in made.items() if k != "nodes"}, made["nodes"]
        lines = ",\n".join("  " + json.dumps(row) for row in nodes)
        file.write_text(json.dumps(head)[:-1] + ', "nodes": [\n' + lines + "\n]}\n")
    kept = json.loads(file.read_text())
    for row, old in zip(made["nodes"], kept["nodes"], strict=True):
        assert row | {"value_sum": pytest.approx(row["value_sum"])} == old
    assert {k: v for k, v in made.items() if k != "nodes"} == {
        k: v for k, v in kept.items() if k != "nodes"
    }
    assert 20 <= len(kept["nodes"]) <= 40
