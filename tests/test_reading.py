"""Arms that could explain a gain away, on hand-made scores whose right answer is known."""

import math
from collections.abc import Sequence

import pandas as pd
import pytest
from toy import Maze

from qvlib import environments
from qvlib.agents.oracle import Oracle
from qvlib.agents.reading import Foreign, KindOnly, WithinKind, mean_by_kind
from qvlib.core.episodes import under
from qvlib.core.types import Proposal, State, Step, Task
from qvlib.report.numbers.against import against, reads


class ByLength:
    """Q = letters of the action, plus those of the instruction that it is told."""

    def score(self, states, actions):
        return [
            [len(a) + 100 * len(s.task.instruction) for a in candidates]
            for s, candidates in zip(states, actions, strict=True)
        ]


def kind(state, action):
    return "", action.partition("[")[0]


TASKS = [Task(f"t{i}", "x" * i, group=f"g{i // 2}") for i in range(1, 7)]


def test_another_tasks_instruction_is_told_and_the_page_stays():
    foreign = Foreign(ByLength(), TASKS, 0)
    for task in TASKS:
        told = foreign.instead_of(task)
        other = next(t for t in TASKS if t.instruction == told)
        assert other.group != task.group and told == foreign.instead_of(task)
        assert foreign.score([State(task, "page")], [["ab"]]) == [[2 + 100 * len(told)]]
    alone = Task("only", "one", group="g")
    assert Foreign(ByLength(), [alone], 0).instead_of(alone) == "one"
    page = State(TASKS[2], "see xxx here", (Step("look", "xxx"),), world="kept")
    assert under(page, "yy").observation == "see yy here"
    assert under(page, "yy").history[0].observation == "yy" and under(page, "yy").world == "kept"
    assert under(page, "yy").task.id == TASKS[2].id


def test_foreign_instructions_are_read_once():
    """A world makes its tasks whenever they are read: to read all at each step took most time."""
    reads = []

    class Made(Sequence):
        def __len__(self):
            return len(TASKS)

        def __getitem__(self, index):
            reads.append(index)
            return TASKS[index]

    foreign = Foreign(ByLength(), Made(), 0)
    told = [foreign.instead_of(task) for task in TASKS * 3]
    assert len(reads) <= len(TASKS) + 1 and told[: len(TASKS)] * 3 == told
    assert told[: len(TASKS)] == [Foreign(ByLength(), TASKS, 0).instead_of(t) for t in TASKS]


def test_the_same_words_are_no_foreign_instruction():
    tasks = [Task(str(i), text, str(i)) for i, text in enumerate(("x", "x", "y"))]
    for seed in range(6):
        assert Foreign(ByLength(), tasks, seed).instead_of(tasks[0]) == "y"
    assert Foreign(ByLength(), tasks[:2], 0).instead_of(tasks[0]) == "x"


def test_where_all_tasks_have_one_instruction_there_is_no_other():
    alike = [Task("a", "win", group="a"), Task("b", "win", group="b")]
    assert Foreign(ByLength(), TASKS, 0).has_another
    assert not Foreign(ByLength(), alike, 0).has_another


def test_the_table_of_kinds_knows_nothing_but_the_kind():
    state = State(TASKS[0], "page")
    mean = mean_by_kind(ByLength(), [(state, ["buy[a]", "buy[bcd]", "go[xyz]"])], kind)
    assert mean == {("", "buy"): 0.0, ("", "go"): 0.0}
    mean = mean_by_kind(ByLength(), [(state, ["buy[a]", "buy[bcd]", "go[]"])], kind)
    assert mean == {("", "buy"): 1.0, ("", "go"): -2.0}
    table = KindOnly(mean, kind)
    assert table.score([state], [["buy[zzzzzz]", "go[y]", "new[]"]]) == [[1.0, -2.0, -0.5]]


def test_the_table_of_kinds_does_not_see_in_which_states_a_kind_occurs():
    """A constant of the state, such as a log-ratio may have, takes no part in the table."""
    states = [State(task, "page") for task in TASKS[:2]]  # ByLength adds 100 a letter of the task
    asked = [["buy[a]", "go[abc]"], ["go[abc]", "go[abc]", "go[abc]", "buy[a]"]]
    mean = mean_by_kind(ByLength(), zip(states, asked, strict=True), kind)
    assert mean[("", "go")] > mean[("", "buy")]
    asked = [["go[abc]", "buy[a]"], ["buy[a]", "buy[a]", "go[abc]"]]
    other = mean_by_kind(ByLength(), zip(states, asked, strict=True), kind)
    assert other[("", "go")] > other[("", "buy")], "though buy is more often in the state of more"


def test_within_the_kind_of_the_first_draw():
    within = WithinKind(ByLength(), kind)
    scores = within.score([State(TASKS[0], "page")], [["go[x]", "buy[long one]", "go[xyz]"]])
    assert scores == [[105, -math.inf, 107]]


def test_the_oracle_tries_in_the_environment():
    environment = Maze()
    task = environment.tasks("train")[0]
    state = environment.reset(task)

    class Gives:
        def __init__(self, action):
            self.action = action

        def propose(self, requests):
            return [[Proposal(self.action)] * r.n for r in requests]

    for action in state.admissible or ():
        ended = environment.step(state, action)
        while not ended.done and ended.depth < environment.max_steps:
            ended = environment.step(ended, action)
        expected = ended.reward - 1e-6 * ended.depth if ended.done else 0.0
        assert Oracle(environment, Gives(action), 0).score([state], [[action]]) == [[expected]]


def rows(**rewards):
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "seed": 0,
                "chain": 0,
                "task": f"t{i}",
                "group": f"g{i}",
                "reward": reward(i),
            }
            for arm, reward in rewards.items()
            for i in range(40)
        ]
    )


@pytest.mark.parametrize(
    ("foreign", "kind_only", "expected"),
    [(0.1, 0.1, True), (0.0, 0.1, False), (0.1, 0.0, False), (-0.1, 0.1, False)],
)
def test_q_reads_only_where_it_beats_both(foreign, kind_only, expected):
    played = rows(
        sample=lambda i: 0.2,
        q_n5=lambda i: 0.5 + 0.02 * (i % 2),
        foreign_q_n5=lambda i: 0.5 + 0.02 * ((i + 1) % 2) - foreign,
        kind_only_n5=lambda i: 0.5 + 0.02 * ((i + 1) % 2) - kind_only,
    )
    differences = against(played, 500)
    assert differences["q_n5"].keys() == {"foreign", "kind_only"} and "q_n10" not in differences
    told = differences["q_n5"]["foreign"]
    assert told["ci95"][0] <= told["mean"] <= told["ci95"][1]
    assert reads(differences) is expected
    assert reads({"q_n5": {"foreign": told}}) is None and reads({}) is None


@pytest.mark.parametrize(
    ("world", "action", "expected"),
    [
        ("hotpotqa", "search[Paris]", "search"),
        ("hotpotqa", "finish[yes]", "answer"),
        ("hotpotqa", "hello", "other"),
        ("textworld", "take apple from table", "take"),
    ],
)
def test_worlds_name_the_kinds_of_their_actions(world, action, expected):
    known = environments.world_of(world)
    assert known.kind(State(TASKS[0], "page"), action) == expected
    assert known.place(State(TASKS[0], "page")) == ""
