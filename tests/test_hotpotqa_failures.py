"""Where episodes on questions fail, by hand-made episodes."""

import pytest

from qvlib.environments import hotpotqa
from qvlib.environments.hotpotqa.failures import KINDS, classify, table
from qvlib.environments.hotpotqa.splits import make_task
from qvlib.report.tables import display_failures

BELL, ANN, BOB = "search[The Bell]", "search[Ann Moor]", "search[Bob Lane]"


@pytest.fixture
def world(hotpot, write):
    return hotpotqa.build(write(hotpot), dev_share=0, test_share=0)


@pytest.fixture
def tasks(world):
    """Where was the director of The Bell (by Ann Moor) born? In Arl. And: which came first?"""
    found = {task.id.rpartition("-")[2]: task for task in world.tasks("train")}
    question = found["q1"].goal
    changed = type(question)(
        **{name: getattr(question, name) for name in question.__dataclass_fields__}
        | {"kind": "comparison", "answer": "Bob Lane", "facts": (("Ann Moor", 0), ("Bob Lane", 0))}
    )
    return {"bridge": found["q1"], "comparison": make_task(changed, "g"), "one": found["q2"]}


@pytest.mark.parametrize(
    ("kind", "actions", "expected"),
    [
        ("bridge", [BELL, ANN, "finish[Arl]"], "right"),
        ("bridge", ["finish[the arl.]"], "right"),
        ("bridge", [], "no answer"),
        ("bridge", [BELL, "search[Moor]", ANN], "no answer"),
        ("bridge", ["search[Bell]", "finish[Ode]"], "search"),
        ("bridge", [ANN, "finish[Ode]"], "search"),
        (
            "bridge",
            ["search[the  bell]", "finish[Ode]"],
            "search",
        ),  # another article, of the same letters
        ("bridge", [BELL, "finish[in Arl]"], "second hop"),
        ("bridge", [BELL, ANN, "lookup[Arl]", "finish[in Arl]"], "answer form"),
        ("bridge", [ANN, "finish[[Arl]", BELL, "finish[Ode]"], "wrong answer"),
        ("comparison", [BELL, "finish[Ann Moor]"], "search"),
        ("comparison", [BOB, "finish[Ann Moor]"], "second hop"),
        ("comparison", [BOB, ANN, "finish[Ann Moor]"], "wrong answer"),
        ("comparison", [BOB, ANN, "finish[Bob]"], "answer form"),
        ("one", [BELL, "lookup[won]", "finish[in 1999]"], "answer form"),
        ("one", [BELL, "finish[2001]"], "wrong answer"),
    ],
)
def test_the_first_kind_that_holds(world, tasks, kind, actions, expected):
    found, f1 = classify(world, tasks[kind], actions)
    assert found == expected and (f1 > 0) == (
        expected in ("right", "answer form")
        or actions[-1:] in (["finish[in Arl]"], ["finish[Arl]"])
    )


def test_a_closed_answer_with_more_words_is_a_matter_of_form(world):
    task = next(t for t in world.tasks("train") if t.id.endswith("q3"))
    assert classify(world, task, [BOB, "finish[yes, it was]"]) == (
        "answer form",
        0.0,
    )  # no F1 for yes and no
    assert classify(world, task, [BOB, "finish[no]"]) == ("wrong answer", 0.0)


def test_a_table_by_arm(hotpot, write):
    for record in hotpot["hotpot_tiny_v1.json"]:
        record["split"] = "test"
    world = hotpotqa.build(
        write(
            {
                "questions.jsonl": _lines(
                    [{**r, "id": r["_id"]} for r in hotpot["hotpot_tiny_v1.json"]]
                ),
                "corpus.jsonl": _lines(
                    [
                        {"title": title, "text": " ".join(text)}
                        for title, text in {
                            t: tuple(s)
                            for r in hotpot["hotpot_tiny_v1.json"]
                            for t, s in r["context"]
                        }.items()
                    ]
                ),
            }
        )
    )
    one = next(t.id for t in world.tasks("test") if t.id.endswith("q2"))
    records = [
        {"arm": "sample", "task": one, "actions": [BELL, "finish[1999]"]},
        {"arm": "sample", "task": one, "actions": ["finish[in 1999]"]},
        {"arm": "control/0", "task": one, "actions": [BELL]},
        {"arm": "control/1", "task": one, "actions": ["finish[x]"]},
        {"arm": "search", "task": one, "actions": []},
    ]
    made = table(world, records).set_index("arm")
    assert list(made.index) == ["sample", "control"] and list(made["episodes"]) == [2, 2]
    assert made.loc["sample", ["exact match", "F1", "search"]].tolist() == pytest.approx(
        [0.5, 5 / 6, 0.5]
    )
    assert made.loc["control", ["exact match", "no answer", "search"]].tolist() == [0, 0.5, 0.5]
    shares = made[["exact match", *(kind for kind in KINDS if kind != "right")]]
    assert shares.sum(axis=1).tolist() == [1, 1]
    assert display_failures(made.reset_index()).iloc[0].tolist() == [
        "sample",
        2,
        "0.500",
        "0.833",
        "0.0%",
        "50.0%",
        "0.0%",
        "0.0%",
        "0.0%",
    ]


def _lines(records):
    import json

    return "".join(json.dumps(record) + "\n" for record in records)
