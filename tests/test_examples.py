"""The examples that notebooks look at closely: one search, one state, one choice, the source."""

from __future__ import annotations

import pandas as pd
import pytest
from toy import Fixed, Maze, Scripted

from qvlib.core import Reranked, dpo_loss
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, search, uct_select
from qvlib.core.preferences import build_pairs
from qvlib.core.trees import tree_record
from qvlib.core.types import Proposal
from qvlib.pipeline.params import PairSettings
from qvlib.report import figures, one_node, one_search, one_state, source


def searched(iterations=30, **changes):
    """(tree, its rows) of a search of the maze that is watched."""
    maze = Maze(**changes)
    watched = one_search.Watched(uct_select(1.4))
    config = SearchConfig(iterations=iterations, expand_n=3)
    job = search(maze, maze.tasks("train")[0], config, 0, select=watched)
    (tree,) = lockstep([job], Scripted(("a", "b", "c", "nonsense")), 1)
    return tree, watched.finish()


def test_the_rows_of_a_search_add_up_to_its_tree():
    tree, rows = searched()
    assert [row["iteration"] for row in rows] == list(range(1, tree.iterations + 1))
    values = [row["value"] for row in rows]
    for i, row in enumerate(rows, 1):  # undiscounted: the root's value is the mean
        assert row["root N"] == i and row["root V"] == pytest.approx(sum(values[:i]) / i)
    assert rows[-1]["root V"] == tree.root.value and rows[0]["selected"] == "root"
    assert sum(row["new actions"] for row in rows) == len(list(tree.root.walk())) - 1
    for row in rows:  # what is new is evaluated by its first child
        child = f"{'' if row['selected'] == 'root' else row['selected'] + '.'}0"
        assert row["evaluated"] == (child if row["new actions"] else row["selected"])


def test_watching_changes_no_search():
    tree, _ = searched()
    maze = Maze()
    config = SearchConfig(iterations=30, expand_n=3, exploration=1.4)
    job = search(maze, maze.tasks("train")[0], config, 0)
    (plain,) = lockstep([job], Scripted(("a", "b", "c", "nonsense")), 1)
    assert tree_record(tree) == tree_record(plain)
    assert "the tree that the run collected" in one_search.compared(
        tree_record(tree), tree_record(plain)
    )
    other = tree_record(searched(iterations=9)[0])
    assert "another tree" in one_search.compared(other, tree_record(plain))


def test_first_actions_of_two_searches_stand_side_by_side():
    long, short = (tree_record(searched(iterations=n)[0]) for n in (30, 2))
    table = one_search.first_actions({"run": long, "changed": short})
    assert list(table) == ["first action", "N, run", "V, run", "N, changed", "V, changed"]
    assert table["N, run"].sum() == 30 and table["N, changed"].sum() == 2
    assert table["N, run"].is_monotonic_decreasing
    assert (table["V, changed"].isna() == (table["N, changed"] == 0)).all()


def record(*children, visits=(1, 1, 1)):
    """A tree of one state whose actions have these values."""
    root = {"node": "", "parent": None, "action": "", "visits": sum(visits), "value": 0.0}
    below = [
        {"node": str(i), "parent": "", "action": "abc"[i], "visits": n, "value": value}
        for i, (value, n) in enumerate(zip(children, visits, strict=True))
    ]
    return {"task": "t", "instruction": "Find it.", "nodes": [root, *below]}


@pytest.mark.parametrize(
    ("tree", "rule", "why_not"),
    [
        (record(0.5, 0.5, 0.5), {}, "All 3 visited actions have the same value: a tie."),
        (record(0.5, 0.49, 0.48), {}, "0.020 apart, less than `min_margin` = 0.05"),
        (record(0.9, 0.1, 0.2, visits=(1, 0, 0)), {}, "1 of 3 actions were visited as often"),
        (record(0.9, 0.1, 0.2, visits=(2, 1, 1)), {"min_visits": 2}, "`min_visits` = 2 asks"),
    ],
)
def test_why_a_state_gives_no_pair(tree, rule, why_not):
    settings = PairSettings(**rule)
    assert build_pairs([tree], settings.pairs, settings.min_margin, settings.min_visits) == []
    assert one_node.with_pair([tree], settings) is None
    siblings = one_node.without_pair([tree], settings)
    assert why_not in siblings.why_not and siblings.where().endswith("In the first state:")
    assert set(siblings.table()["in the pair"]) == {""}


def test_siblings_off_the_best_trajectory_are_not_compared():
    tree = record(0.9, 0.1, 0.2)
    tree["nodes"] += [
        {"node": f"1.{i}", "parent": "1", "action": "xy"[i], "visits": 1, "value": value}
        for i, value in enumerate((0.0, 1.0))
    ]
    siblings = one_node.without_pair([tree], PairSettings(pairs="best_value_path"))
    assert (
        siblings.path == ("b",) and "`best_value_path` looks at the states on" in siblings.why_not
    )
    assert siblings.where().endswith("After `b`:")


def test_the_clearest_pair_is_marked_among_its_siblings():
    trees = [record(0.4, 0.2, 0.3), record(0.1, 0.9, 0.5), record(0.9, 0.1, 0.5)]
    siblings = one_node.with_pair(trees, PairSettings())
    assert siblings.table().to_dict("records") == [
        {"action": "`b`", "visits N": 1, "value V": "0.900", "in the pair": "chosen"},
        {"action": "`c`", "visits N": 1, "value V": "0.500", "in the pair": ""},
        {"action": "`a`", "visits N": 1, "value V": "0.100", "in the pair": "rejected"},
    ]
    everywhere = one_node.without_pair(trees, PairSettings())
    assert everywhere is None


def test_the_step_that_q_changed_most():
    def step(*qs):
        return {"candidates": [{"q": q} for q in qs]}

    records = [{"task": "s", "trace": [step(1.0, 0.5)]}, {"task": "t", "trace": [step(0.0, 0.1)]}]
    records[1]["trace"].append(step(-3.0, 0.1, 0.2))
    assert one_state.deciding(records) == (records[1], 1)


def test_candidates_of_a_choice():
    considered = tuple(Proposal(a, log_prob=-1.0, q=q) for a, q in (("a", 0.1), ("b", 0.4)))
    chosen = Proposal("a", q=0.1, considered=(*considered, considered[0]))
    table = one_state.table(chosen)
    assert list(table["candidate"]) == ["`b`", "`a`"] and list(table["draws"]) == [1, 2]
    assert list(table[""]) == ["", "executed"]
    silent = Proposal("a", considered=(Proposal("a", q=0.1), Proposal("b", q=0.2)))
    assert "log p (nats)" not in one_state.table(silent)


def test_draws_of_states_that_go_on():
    maze = Maze()
    start = maze.reset(maze.tasks("train")[0])
    end = start
    for action in "abc":
        end = maze.step(end, action)
    table = one_state.draws(Fixed("abc", (None,)), {"start": start, "end": end}, 4, (0, "t", ""))
    assert list(table["state"]) == ["start"] * 4 and "log p (nats)" not in table


def test_code_is_the_source_in_a_block_that_is_highlighted():
    text = source.code(dpo_loss, Reranked)
    first, second = text.split("`qvlib.core.reranker`")
    assert first.startswith("`qvlib.core.dpo`\n\n```python\ndef dpo_loss(")
    assert "return -logsigmoid(beta" in first and first.rstrip().endswith("```")
    assert "@dataclass(frozen=True)\nclass Reranked:" in second


def test_pictures_of_an_example():
    _, rows = searched(iterations=6)
    picture = figures.root_value(pd.DataFrame(rows))
    assert [len(line.get_xdata()) for line in picture.axes[0].lines[:2]] == [6, 6]
    losses = figures.pair_loss({"a": 0.1, "b": 1.0}, 2.0)
    assert [text.get_text() for text in losses.axes[0].get_legend().get_texts()] == ["a", "b"]
    assert figures.png(losses).startswith(b"\x89PNG")


def test_the_curve_of_another_estimator_is_drawn_as_it_is():
    curve = pd.DataFrame({"step": [0, 1], "split": "train", "error": [2.0, 1.0]})
    (panel,) = figures.training(curve, curve.assign(error=3.0)).axes
    assert panel.get_title(loc="left") == "error"
    assert len({line.get_color() for line in panel.lines}) == 2  # the Q model and its control
    (empty,) = figures.training(curve[["step"]], curve[["step"]]).axes
    assert empty.get_title(loc="left") == "No training curve"
