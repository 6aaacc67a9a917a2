"""What Q orders rightly by kind of pair, and the reward by its parts, on numbers known by hand."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from toy import Maze, Scripted

from qvlib.agents.reading import Foreign
from qvlib.agents.search import SEARCH
from qvlib.core.episodes import replay
from qvlib.core.lockstep import lockstep
from qvlib.core.types import State, Task
from qvlib.estimators.log_ratio import LogProb
from qvlib.pipeline import scored
from qvlib.pipeline.params import make
from qvlib.report import figures, kinds, numbers, tables
from qvlib.report.numbers import by_part
from qvlib.report.results_files import read

MAZE = Maze()


def rows(kind_pairs, tasks=10, **ways):
    """Pairs of kinds in turn; ways: of the number of a pair, how much higher its chosen action."""
    return pd.DataFrame(
        [
            {"task": f"t{i % tasks}", "seed": 0, "chosen_kind": chosen, "rejected_kind": rejected}
            | {way: tell(i) for way, tell in ways.items()}
            for i, (chosen, rejected) in enumerate(kind_pairs)
        ]
    )


def test_the_commonest_kind_of_pair_is_told_with_what_the_agent_knew():
    pairs = [("product", "product")] * 30 + [("query", "query")] * 20
    adds = numbers.by_kind(rows(pairs, own=lambda i: 1.0, log_pi=lambda i: -1.0, foreign=abs), 300)
    assert kinds.adds_to_agent(adds) is True
    said = kinds.commonest(adds)
    assert "(60%) are of kind *product*: of 30 pairs" in said and "it adds to what" in said
    alike = numbers.by_kind(rows(pairs, own=lambda i: 1.0, log_pi=lambda i: 1.0, foreign=abs), 300)
    assert kinds.adds_to_agent(alike) is False and "no difference" in kinds.commonest(alike)
    few = numbers.by_kind(rows(pairs[:3], own=abs, log_pi=abs, foreign=abs), 300)
    assert kinds.commonest(few) == kinds.commonest({}) == "" and kinds.adds_to_agent(few) is None


def test_the_kind_of_a_pair_has_no_order():
    assert numbers.pair_kind("product", "product") == "product"
    assert numbers.pair_kind("option", "buy") == numbers.pair_kind("buy", "option")
    assert numbers.pair_kind("option", "buy") == "buy against option"


def test_accuracy_by_kind_by_hand():
    pairs = [("option", "buy"), ("buy", "option")] * 20 + [("product", "product")] * 20
    pairs += [("query", "query")] * 3
    table = rows(
        pairs,
        own=lambda i: 1.0 if i < 30 else (0.0 if i < 40 else -1.0),
        foreign=lambda i: -1.0 if i % 2 else 1.0,
        log_pi=lambda i: 2.0,
    )
    found = numbers.by_kind(table, 300)
    assert list(found) == ["buy against option", "product", "other", "all"]
    told = found["buy against option"]
    assert (told["own"], told["foreign"], told["log_pi"]) == (35 / 40, 0.5, 1.0)  # a tie is a half
    assert (told["pairs"], told["tasks"]) == (40, 10)
    assert told["own_minus_foreign"]["mean"] == pytest.approx(35 / 40 - 0.5)
    assert told["own_minus_log_pi"]["mean"] == pytest.approx(-5 / 40)
    assert told["ci95"][0] <= told["own"] <= told["ci95"][1]
    assert found["product"]["own"] == 0 and found["other"]["pairs"] == 3
    assert found["all"]["pairs"] == 63 and found["all"]["own"] == pytest.approx(35 / 63)
    json.dumps(found, allow_nan=False)


def test_what_a_server_does_not_tell_is_none_and_its_differences_too():
    table = rows([("a", "a")] * 30, own=float, foreign=float, log_pi=lambda i: None)
    told = numbers.by_kind(table, 300)["a"]
    assert (told["log_pi"], told["log_pi_ci95"], told["own_minus_log_pi"]) == (None, None, None)
    shown = tables.display_kinds(numbers.kind_table({"a": told}))
    assert shown.loc[0, "log π"] == shown.loc[0, "Q less log π"] == ""
    assert shown.loc[0, "Q"].startswith("0.98 [")
    assert "log π" not in kinds.said({"a": told})


@pytest.mark.parametrize(
    ("own", "foreign", "coin", "verdict"),
    [
        (1, -1, "better than a coin", "the instruction is read"),
        (1, 1, "better than a coin", "no difference is shown"),
        (-1, 1, "worse than a coin", "it is worse"),
        (0, 0, "not shown to be other than a coin", "no difference is shown"),
    ],
)
def test_sentences_follow_the_intervals(own, foreign, coin, verdict):
    table = rows(
        [("a", "a")] * 60,
        own=lambda i: own if i % 7 else -own,
        foreign=lambda i: foreign if i % 7 else -foreign,
        log_pi=lambda i: 0.0,
    )
    line = kinds.said({"a": numbers.by_kind(table, 300)["a"]})
    assert f"rightly, {coin}; " in line
    assert verdict in line.partition("another task's instruction")[2].partition(";")[0]
    assert kinds.said({}) == kinds.NONE


class Prefers:
    """Q = letters of the action, and a hundred for each letter of the instruction."""

    def score(self, states, actions):
        return [
            [len(a) * len(s.task.instruction) for a in candidates]
            for s, candidates in zip(states, actions, strict=True)
        ]


def test_search_keeps_the_pairs_of_its_tree_and_its_best_episode():
    task = MAZE.tasks("test")[0]
    params = make({"search_iterations": 30, "min_margin": 0.1, "min_visits": 2})
    cast = SimpleNamespace(params=params, environment=MAZE, sampler=Scripted)
    (player,) = SEARCH.players(cast).values()
    (record,) = lockstep([player.play(MAZE, task, 0)], player.agent, 1)
    assert record["pairs"]
    for pair in record["pairs"]:
        assert pair["chosen_value"] - pair["rejected_value"] >= 0.1
        assert min(pair["chosen_visits"], pair["rejected_visits"]) >= 2
        assert {pair["chosen"], pair["rejected"]} <= set(
            replay(MAZE, task, pair["path"]).admissible
        )
    assert replay(MAZE, task, record["actions"]).reward == record["reward"]
    json.dumps(record)


def test_a_draw_of_pairs_is_of_the_seed_and_leaves_few_as_they_are():
    tasks = [(f"t{i}", [{"chosen": f"{i}/{j}"} for j in range(10)]) for i in range(5)]
    assert scored.drawn(iter(tasks), 50, 0) == dict(tasks)
    some = scored.drawn(iter(tasks), 20, 0)
    assert sum(map(len, some.values())) == 20 and some == scored.drawn(iter(tasks), 20, 0)
    assert some != scored.drawn(iter(tasks), 20, 1)
    assert scored.drawn(iter([("t", [])]), 20, 0) == {}


def test_pairs_are_scored_in_each_way_and_each_state_once():
    task = Task("t", "abc", group="g")
    other = Task("u", "ab", group="h")
    asked = []

    class Counted(Prefers):
        def score(self, states, actions):
            asked.extend(actions)
            return super().score(states, actions)

    context = SimpleNamespace(
        environment=SimpleNamespace(reset=lambda given: State(given, "page"), step=None),
        world=SimpleNamespace(kind=lambda state, action: action[0]),
    )
    pairs = [
        {"path": [], "chosen": "ccc", "rejected": "a", "chosen_value": 0.5, "rejected_value": 0.25},
        {"path": [], "chosen": "bb", "rejected": "a", "chosen_value": 0.5, "rejected_value": 0.0},
    ]
    ways = {"own": Counted(), "foreign": None, "log_pi": None}
    (record,) = scored.score_tasks(context, ways, [(task, pairs)])
    assert asked == [["ccc", "a", "bb"]] and (record["task"], record["group"]) == ("t", "g")
    first, second = record["pairs"]
    assert (first["own"], first["foreign"], first["log_pi"]) == (2 * 3, None, None)
    assert (first["margin"], first["depth"]) == (0.25, 0)
    assert (first["chosen_kind"], first["rejected_kind"]) == ("c", "a") and second["own"] == 3
    assert Foreign(Prefers(), [task, other], 0).instead_of(task) == "ab"


def test_what_the_agent_knows_is_its_own_log_probability():
    model = SimpleNamespace(
        prompts=lambda states: [(f"prompt {s}", (s,)) for s in states],
        action_ids=lambda prompt, action: (len(prompt), len(action)),
        log_probs=lambda ids, replies: [
            [i[0] * 100 + r[1] for r in rs] for i, rs in zip(ids, replies, strict=True)
        ],
    )
    assert LogProb(model).score([1, 2], [["a", "bb"], ["ccc"]]) == [[101, 102], [203]]


def test_parts_are_means_over_the_tasks_that_have_them(monkeypatch):
    played = pd.DataFrame(
        {
            "arm": ["sample", "sample", "control_q_n5/0", "control_q_n5/1", "search", "search"],
            "task": ["a", "b", "a", "b", "a", "b"],
            "actions": [["x"], ["x"], ["x", "x"], [], ["x"], []],
        }
    )
    asked = []

    def tell(environment, task, actions):
        asked.append((task.id, actions))
        shares = {"price": float(len(actions) > 0)}
        return shares | ({"options": len(actions) / 2} if task.id == "a" else {})

    environment = SimpleNamespace(tasks=lambda split: [Task("a", ""), Task("b", "")])
    context = SimpleNamespace(environment=environment, world=SimpleNamespace(parts=tell))
    monkeypatch.setattr(by_part, "test_episodes", lambda params, *more: played)
    found = numbers.parts(make({}), context)
    assert found == {
        "sample": {"price": 1.0, "options": 0.5},
        "search": {"price": 0.5, "options": 0.5},
        "control_q_n5": {"price": 0.5, "options": 1.0},
    }
    assert len(asked) == len(set(asked)) == 4  # a walk that arms share is taken once
    table = tables.display_parts(numbers.parts_table(found))
    assert list(table["arm"]) == list(found) and table.loc[0, "options"] == "50.0%"
    context.world.parts = None
    assert numbers.parts(make({}), context) == {}
    context.world.parts = tell
    less = played.drop(columns="actions")
    monkeypatch.setattr(by_part, "test_episodes", lambda params, *more: less)
    assert numbers.parts(make({}), context) == {}


def test_older_results_call_the_arm_by_its_name_of_today(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps({"arms": {"sample": 1, "mcts": 2}, "gains": {"mcts": 3}, "x": 1}))
    assert read(file) == {"arms": {"sample": 1, "search": 2}, "gains": {"search": 3}, "x": 1}


@pytest.mark.parametrize("known", [True, False])
def test_the_picture_has_a_row_a_kind_and_a_marker_a_way(known):
    table = rows(
        [("option", "buy")] * 40 + [("product", "product")] * 30,
        own=lambda i: 1.0 if i % 3 else -1.0,
        foreign=lambda i: 1.0 if i % 2 else -1.0,
        log_pi=lambda i: 0.5 if known else None,
    )
    figure = figures.accuracy_by_kind(numbers.by_kind(table, 300), "mine")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "buy against option (40)",
        "product (30)",
        "all (70)",
    ]
    assert len(axes.get_legend().get_texts()) == 2 + known
    assert "mine" in axes.get_title(loc="left") and figures.png(figure)
    assert figures.png(figures.accuracy_by_kind({}))


def test_calibration_tells_kinds_apart_by_colour_and_marker():
    table = pd.DataFrame(
        {
            "value_centred": [i / 20 - 0.5 for i in range(40)],
            "q_centred": [i / 10 - 1 for i in range(40)],
            "kind": [f"kind {i % 8}" if i < 36 else "kind 0" for i in range(40)],
        }
    )
    (axes,) = figures.calibration(table).axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[0] == "kind 0 (9)" and len(names) == 6 + 1 + 1  # the rest, and the mean
    assert any(name.startswith("other kinds (") for name in names)
