"""Equality with recorded cases of the original, and what parity says when they differ."""

import gzip
import json

import pytest

from qvlib.base.errors import QvlibError
from qvlib.cli import main
from qvlib.environments.webshop import catalogue
from qvlib.tools import parity


@pytest.fixture(scope="session")
def rows(shared):
    return {row.file: row for row in parity.check_webshop(shared / "data" / "webshop")}


@pytest.fixture(scope="session")
def hotpotqa_rows(hotpotqa_data):
    return {row.file: row for row in parity.check_hotpotqa(hotpotqa_data)}


@pytest.mark.parametrize(
    ("file", "total"),
    [
        ("goals", 6923),
        ("reward_golden", 5217),
        ("pages_golden", 501),
        ("search_golden", 422),
        ("doc_tokens", 1000),
        ("episodes_golden", 199),
    ],
)
def test_webshop_is_the_original(rows, file, total):
    row = rows[f"{file}.jsonl.gz"]
    assert (row.matching, row.total, row.first_difference) == (total, total, "")


@pytest.mark.parametrize(("file", "total"), [("env_golden", 201), ("metric_golden", 423)])
def test_hotpotqa_is_the_original(hotpotqa_rows, file, total):
    row = hotpotqa_rows[f"{file}.jsonl.gz"]
    assert (row.matching, row.total, row.differing) == (total, total, ())


def test_every_difference_is_named(hotpot, write, capsys):
    right = {
        "prediction": "Arl",
        "gold": "arl",
        "norm_prediction": "arl",
        "norm_gold": "arl",
        "em": 1,
        "f1": 1.0,
        "precision": 1.0,
        "recall": 1.0,
    }
    records = [
        {"id": "wrong-1", **right, "f1": 0.5},
        {"id": "right", **right},
        {"id": "wrong-2", **right, "em": 0},
    ]
    steps = [
        {
            "action": "search[Ann]",
            "obs": None,
            "obs_prefix": "Could not find Ann. Similar: [",
            "obs_suffix": "].",
            "miss": True,
            "reward": 0,
            "done": False,
            "steps": 1,
            "answer": None,
        },
        {
            "action": "finish[arl]",
            "obs": "Episode finished, reward = 1\n",
            "miss": False,
            "reward": 1,
            "done": True,
            "steps": 2,
            "answer": "arl",
            "em": 1,
            "f1": 1.0,
        },
    ]
    told = {
        "id": "e",
        "kind": "k",
        "question_id": "q",
        "question": "?",
        "gold_answer": "Arl",
        "reset_obs": "Question: ?",
        "steps": steps,
    }
    late = {**told, "id": "late", "steps": [{**steps[0], "steps": 2}]}
    folder = write(
        {
            **hotpot,
            "metric_golden.jsonl": "".join(json.dumps(r) + "\n" for r in records),
            "env_golden.jsonl": json.dumps(told) + "\n" + json.dumps(late) + "\n",
        }
    )
    transcripts, metric = parity.check_hotpotqa(folder)
    assert (
        metric.differing == ("wrong-1", "wrong-2")
        and "record 1: f1: 1.0 instead of 0.5" in metric.first_difference
    )
    assert (transcripts.matching, transcripts.differing) == (
        1,
        ("late",),
    ) and "k, step 1: steps" in transcripts.first_difference
    assert main(["parity", "hotpotqa", str(folder)]) == 1
    assert "differing: wrong-1 wrong-2" in capsys.readouterr().out


def test_prices_are_the_recorded_ones(shared):
    folder = shared / "data" / "webshop"
    with gzip.open(folder / "product_prices.json.gz") as file:
        recorded = json.load(file)
    assert {p.asin: p.price for p in catalogue.load(folder).products} == recorded


def test_a_difference_is_named(official, write):
    folder = write(
        {
            **official,
            "search_golden.jsonl": json.dumps(
                {
                    "query": "green tea",
                    "tokens": ["green", "tea"],
                    "asins": ["B000000003", "B000000001"],
                }
            )
            + "\n",
        }
    )
    (row,) = parity.check_webshop(folder)
    assert (row.matching, row.total) == (0, 1) and "record 1: asins" in row.first_difference
    assert "0 of 1" in parity.format_rows([row])


def test_nothing_to_compare(official, write):
    with pytest.raises(QvlibError, match="parity needs recorded cases"):
        parity.check_webshop(write(official))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_without_cases_is_not_the_same(official, write, suffix):
    name = f"reward_golden.jsonl{suffix}"
    with pytest.raises(QvlibError, match=f"{name}: no records in it"):
        parity.check_webshop(write({**official, name: gzip.compress(b"") if suffix else b""}))


def test_cut_off_cases(official, write):
    folder = write(
        {**official, "goals.jsonl.gz": gzip.compress(b'{"set": "synthetic"}\n' * 99)[:-9]}
    )
    with pytest.raises(QvlibError, match=r"goals\.jsonl\.gz: cut off"):
        parity.check_webshop(folder)
