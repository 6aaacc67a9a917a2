"""The rules of the paper's public code, restated here: its search, its pairs.

``Theirs`` is a second search, written from the rules alone. It draws by the same keys as ``search``
with the published settings, so that the two must grow the same tree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import REFUSED, Fixed, Maze, Scripted

from qvlib.agents.search import search_config, selection
from qvlib.agents.search_rules import published_select, published_uct, select_once
from qvlib.base.seeding import generator
from qvlib.core.episodes import replay
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import Node, SearchConfig, search, uct_select
from qvlib.core.preferences import build_pairs
from qvlib.core.trees import best_trajectory, tree_record
from qvlib.core.types import Request, State, Task
from qvlib.pipeline.params import make

TASK = Task("train-0", "go", "train-0")
WEBSHOP = {
    "uct": "published_code",
    "expand_at": "first_visit",
    "unvisited_value": "reward",
    "ended_leaves": "published_code",
    "refused_actions": "go_on",
    "final_backup": True,
    "discount": 1.0,
}
HOTPOTQA = WEBSHOP | {"unvisited_value": "zero", "wrong_end_value": -1.0}


@dataclass(frozen=True)
class Ends(Maze):
    """A maze whose action ``b`` ends an episode wherever it is taken; rewards up to 1."""

    def step(self, state: State, action: str) -> State:
        after = super().step(state, action)
        if action != "b" or after.done:
            return after
        reward = self.reward(state.task, after.world)
        return State(state.task, "ended", after.history, (), reward, True, True, after.world)

    def reward(self, task, world):
        drawn = int(generator(self.seed, task.id, *world).integers(self.levels + 1))
        return drawn / self.levels


def grow(maze, agent, config=None, seed=0, **rules):
    config = config or SearchConfig(30, 3)
    return next(lockstep([search(maze, TASK, config, seed, **rules)], agent, 1))


def published(maze, agent, world, seed=0, **changes):
    """A search with the published settings of a world."""
    chosen = make({**world, **changes}).search
    return grow(maze, agent, search_config(chosen), seed, select=selection(chosen))


# -- the search -------------------------------------------------------------------------------


@dataclass(eq=False)
class Place:
    state: State
    name: str
    above: Place | None = None
    below: list[Place] = field(default_factory=list)
    visits: int = 0
    value: float = 0.0
    ever_below: int = 0


class Theirs:
    """The public search, of WebShop or of HotPotQA."""

    def __init__(self, maze, agent, world, iterations, n, stop):
        self.maze, self.agent, self.shop = maze, agent, world is WEBSHOP
        self.iterations, self.n, self.stop = iterations, n, stop
        self.root = Place(maze.reset(TASK), "")

    def draw(self, state, n, key):
        return [p.action for p in self.agent.propose([Request(state, n, (0, TASK.id, key))])[0]]

    def run(self):
        for number in range(self.iterations):
            place = self.select()
            if place is None:
                break
            if place.state.done:  # a success, where it does not stop the search
                self.back_up(place, place.state.reward)
                continue
            self.expand(place)
            start = max(place.below, key=lambda p: p.value) if place.below else place
            value = self.roll_out(start, number)
            self.back_up(start, value)
            if self.stop and any(p.state.done and p.state.reward == 1 for p in self.walk()):
                return self
        for place in list(self.walk()):
            if place.state.done and place.value == 0:
                self.back_up(place, place.state.reward)
        return self

    def select(self):
        place = self.root
        while place.below:
            if all(p.state.done for p in place.below):
                if place is self.root:
                    return None
                place.above.below.remove(place)
                place = place.above
                continue
            for p in place.below:
                if p.state.done and p.state.reward == 1:
                    return p
            place = max((p for p in place.below if not p.state.done), key=self.worth)
        return place

    def worth(self, place):
        if place.visits == 0:
            return math.inf if place.value >= 0 else place.value
        bonus = math.sqrt(2 * math.log(place.above.visits) / place.visits)
        return place.value / place.visits + bonus

    def expand(self, place):
        if place.state.depth >= self.maze.max_steps:
            return
        again = f"+{place.ever_below}" if place.ever_below else ""
        for action in dict.fromkeys(self.draw(place.state, self.n, f"search/{place.name}{again}")):
            state = self.maze.step(place.state, action)
            name = f"{place.name}.{place.ever_below}".lstrip(".")
            new = Place(state, name, place)
            if self.shop:
                new.value = state.reward if state.valid else -1.0
            place.below.append(new)
            place.ever_below += 1

    def roll_out(self, start, number):
        state = start.state
        while not state.done and state.depth < self.maze.max_steps:
            key = f"search/{start.name}/{number}/{state.depth}"
            state = self.maze.step(state, self.draw(state, 1, key)[0])
        return state.reward if state.done else self.maze.timeout_value

    def back_up(self, place, value):
        while place:
            wrong = not self.shop and place.state.done and place.state.reward == 0
            place.visits += 1
            place.value += ((-1 if wrong else value) - place.value) / place.visits
            place = place.above

    def walk(self, place=None):
        place = place or self.root
        yield place
        for p in place.below:
            yield from self.walk(p)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    iterations=st.integers(1, 40),
    n=st.integers(1, 5),
    depth=st.integers(1, 4),
    max_steps=st.integers(1, 6),
    actions=st.lists(st.sampled_from(["a", "b", "c", "loop", REFUSED]), min_size=1, max_size=6),
    stop=st.booleans(),
    world=st.sampled_from([WEBSHOP, HOTPOTQA]),
)
def test_the_published_settings_grow_the_tree_of_the_published_rules(
    seed, iterations, n, depth, max_steps, actions, stop, world
):
    maze = Ends(seed=seed, depth=depth, max_steps=max_steps, levels=3)
    theirs = Theirs(maze, Scripted(actions), world, iterations, n, stop).run()
    size = {"iterations": iterations, "expand_n": n, "stop_at_success": stop}
    tree = published(maze, Scripted(actions), world, **size)
    ours = [(node.id, node.state, node.visits) for node in tree.root.walk()]
    assert ours == [(p.name, p.state, p.visits) for p in theirs.walk()]
    values = [node.value for node in tree.root.walk()]
    assert values == pytest.approx([p.value for p in theirs.walk()])
    assert all(-1 <= value <= 1 for value in values)
    assert replay(maze, TASK, tree.best_actions).reward == tree.root.best_reward
    build_pairs([tree_record(tree)], "best_path")  # its record is a tree


def test_a_leaf_is_expanded_when_it_is_first_reached():
    at_first = grow(Maze(), Scripted(), SearchConfig(2, 12, expand_at="first_visit"))
    at_second = grow(Maze(), Scripted(), SearchConfig(2, 12))
    assert sum(bool(node.children) for node in at_first.root.walk()) == 2
    assert sum(bool(node.children) for node in at_second.root.walk()) == 1


def test_with_the_first_visit_a_success_that_was_stepped_into_ends_the_search():
    class Sure(Maze):
        def reward(self, task, world):
            return float(world == ("b",))

    maze, agent = Sure(depth=1, choices=("a", "b")), Fixed(["a", "b"])
    tree = grow(maze, agent, SearchConfig(9, 2, expand_at="first_visit"))
    assert tree.iterations == 1 and [c.visits for c in tree.root.children] == [1, 0]
    assert tree.root.best_reward == 1 and tree.best_actions == ("b",)
    assert grow(maze, agent, SearchConfig(9, 2)).iterations == 2
    # and what is known of it counts before it is visited
    known = SearchConfig(9, 2, expand_at="first_visit", unvisited_value="reward")
    assert [c.value for c in grow(maze, agent, known).root.children] == [0, 1]


def test_refused_actions_may_be_gone_on_from():
    def walk(**rules):
        config = SearchConfig(20, 2, stop_at_success=False, **rules)
        return list(grow(Maze(), Fixed(["a", REFUSED]), config).root.walk())

    assert not any(node.children for node in walk() if node.action == REFUSED)
    on = walk(refused_actions="go_on", unvisited_value="reward")
    assert any(node.children for node in on if node.action == REFUSED)
    unvisited = [node.value for node in on if node.action == REFUSED and not node.visits]
    assert unvisited and set(unvisited) == {-1.0}


def test_a_wrong_end_counts_in_its_own_node_alone():
    class Wrong(Maze):
        def reward(self, task, world):
            return 0.0

    config = SearchConfig(4, 1, wrong_end_value=-1.0)
    tree = grow(Wrong(depth=1, choices=("a",)), Fixed(["a"]), config)
    (end,) = tree.root.children
    assert (end.visits, end.value, tree.root.value) == (4, -1.0, 0.0)


def test_at_the_end_each_end_of_value_zero_is_backed_up_once_more():
    class Wrong(Maze):
        def reward(self, task, world):
            return 0.0 if world != ("c",) else 0.5

    maze, agent = Wrong(depth=1), Fixed(["a", "b", "c"])
    for config, visits in ((SearchConfig(1, 3), [1, 0, 0]), (SearchConfig(3, 3), [1, 1, 1])):
        tree = grow(maze, agent, config)
        assert [child.visits for child in tree.root.children] == visits
    tree = grow(maze, agent, SearchConfig(1, 3, final_backup=True))
    assert [(c.visits, c.value) for c in tree.root.children] == [(2, 0), (1, 0), (1, 0.5)]
    assert tree.root.visits == 4 and tree.iterations == 1


def test_ends_are_selected_once_and_a_finished_tree_ends_the_search():
    maze = Maze(depth=2, choices=("a", "b"))
    config = SearchConfig(99, 6, stop_at_success=False)
    again = grow(maze, Scripted("ab"), config)
    once = grow(maze, Scripted("ab"), config, select=select_once(math.sqrt(2)))
    assert again.iterations == 99 and once.iterations == 6  # two within, four ends
    assert all(n.visits == 1 for n in once.root.walk() if n.state.done)
    assert max(n.visits for n in again.root.walk() if n.state.done) > 10
    assert [n.id for n in once.root.walk()] == [n.id for n in again.root.walk()]  # none deleted


def test_a_node_with_ends_alone_below_is_deleted_by_the_published_selection():
    maze = Maze(depth=2, choices=("a", "b"))
    config = SearchConfig(4, 6, stop_at_success=False, expand_at="first_visit")
    kept = grow(maze, Scripted("ab"), config)
    less = grow(maze, Scripted("ab"), config, select=published_select(math.sqrt(2)))
    assert [child.id for child in kept.root.children] == ["0", "1"]
    assert [child.id for child in less.root.children] == ["2", "3"]  # drawn anew
    # with names and draws of their own
    agent = Scripted("ab")
    grow(maze, agent, config, select=published_select(math.sqrt(2)))
    asked = [request.key for call in agent.calls for request in call]
    assert len(asked) == len(set(asked)) and any("+2" in key[2] for key in asked)


def test_uct_as_published_puts_refused_actions_last():
    below, parent = Node("0", State(TASK, "")), Node("", State(TASK, ""), visits=9)
    assert published_uct(below, parent, 1.0) == math.inf
    below.unvisited_value = -1.0
    assert published_uct(below, parent, 1.0) == -1.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    at=st.sampled_from(["second_visit", "first_visit"]),
    value=st.sampled_from(["zero", "reward"]),
    refused=st.sampled_from(["end", "go_on"]),
    select=st.sampled_from([uct_select, select_once, published_select]),
    actions=st.lists(st.sampled_from(["a", "b", "c", "loop", REFUSED]), min_size=1, max_size=5),
    final=st.booleans(),
)
def test_the_best_that_was_seen_is_told_by_one_truth(
    seed, at, value, refused, select, actions, final
):
    """``best_reward`` of the root, the arm's reward and the best trajectory are of one episode."""
    maze = Ends(seed=seed, levels=4)
    config = SearchConfig(
        20,
        4,
        expand_at=at,
        unvisited_value=value,
        refused_actions=refused,
        final_backup=final,
        stop_at_success=False,
    )
    tree = grow(maze, Scripted(actions), config, seed, select=select(1.0))
    best = best_trajectory(tree_record(tree))
    assert (best is None) == (tree.best_actions == ())
    if best is not None:
        assert best[0] == tree.root.best_reward == replay(maze, TASK, tree.best_actions).reward
    for node in tree.root.walk():
        assert not node.state.done or node.best_reward == node.state.reward
        assert node.best_reward >= max((c.best_reward for c in node.children), default=0)


def test_an_end_that_was_stepped_into_and_not_visited_counts():
    maze = Ends(seed=3, levels=5)  # b ends at once
    tree = grow(maze, Fixed(["a", "b"]), SearchConfig(1, 2))
    first, second = tree.root.children
    assert (first.visits, second.visits, second.state.done) == (1, 0, True)
    assert second.best_reward == second.state.reward <= tree.root.best_reward


# -- the pairs --------------------------------------------------------------------------------


def public_pairs(record):
    """(depth, chosen, rejected): best against worst child at each depth above the best node.

    The best node is the first of the highest reward, parents before children.
    """
    rows = record["nodes"]
    best, length = rows[0], len(record["nodes"])
    for row in rows[1:length]:
        if row["reward"] > best["reward"]:
            best = row
    line, name = [], best["node"]
    while name is not None:
        line.insert(0, name)
        name = next(row["parent"] for row in rows if row["node"] == name)
    made = []
    for depth, name in enumerate(line[:-1]):
        children = [row for row in rows if row["parent"] == name]
        values = [row["value"] if row["visits"] else 0.0 for row in children]
        most, least = values.index(max(values)), values.index(min(values))
        if most != least:
            made.append((depth, children[most]["action"], children[least]["action"]))
    return made


def test_best_path_is_the_published_rule_on_recorded_trees():
    count, walked = 0, 0
    for seed in range(60):
        maze = Ends(seed=seed, depth=4, max_steps=5, levels=6)
        agent = Scripted(("a", "b", "c", "loop", REFUSED))
        tree = tree_record(grow(maze, agent, SearchConfig(30, 4), seed))
        pairs = build_pairs([tree], "best_path")
        expected = public_pairs(tree)
        assert [(p.depth, p.chosen, p.rejected) for p in pairs] == expected
        count += len(expected)
        walked += build_pairs([tree], "best_value_path") != pairs
    assert count > 90 and walked > 20  # the walk along the values is another rule


def test_best_path_by_hand():
    """The reward is on the left, the values point to the right; ``never`` was not visited: 0."""

    def row(name, parent, action, visits, value, reward=0.0):
        keys = ("node", "parent", "action", "visits", "value", "reward")
        return dict(zip(keys, (name, parent, action, visits, value, reward), strict=True))

    rows = [
        row("", None, "", 9, 0.3),
        row("0", "", "left", 3, 0.2),
        row("1", "", "right", 6, 0.4),
        row("0.0", "0", "buy", 1, 0.7, 0.7),
        row("0.1", "0", "never", 0, 0.0),
        row("0.2", "0", "back", 1, -0.3),
        row("1.0", "1", "good", 3, 0.5, 0.5),
        row("1.1", "1", "bad", 3, 0.3, 0.3),
    ]
    record = {"task": "t", "nodes": rows}

    def made(rule, **more):
        return [(p.path, p.chosen, p.rejected) for p in build_pairs([record], rule, **more)]

    top = ((), "right", "left")
    assert made("best_path") == [top, (("left",), "buy", "back")]
    assert made("best_value_path") == [top, (("right",), "good", "bad")]
    rows[5] = row("0.2", "0", "back", 1, 0.1)
    assert made("best_path")[1] == (("left",), "buy", "never")
    assert made("best_path", min_visits=1)[1] == (("left",), "buy", "back")
    rows[3] = row("0.0", "0", "buy", 1, 0.0)
    rows[6] = row("1.0", "1", "good", 3, 0.5)
    rows[7] = row("1.1", "1", "bad", 3, 0.3)
    assert made("best_path") == []  # nothing was earned: the best node is the root itself
