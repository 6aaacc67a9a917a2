"""The benchmarks run and what they compare is the same thing; speed itself is never tested."""

import json

import pytest

from qvlib import bench
from qvlib.bench import common, env, scoring
from qvlib.cli import main


def test_turns_and_medians():
    order = []
    seconds = common.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3 and set(seconds) == {"a", "b"} and all(s >= 0 for s in seconds.values())


def test_scoring_compares_equal_numbers(monkeypatch, capsys):
    monkeypatch.setattr(scoring, "PROMPT", 40)
    model = scoring._model
    monkeypatch.setattr(scoring, "_model", lambda width, layers: model(32, 1))
    rows, result = scoring.run(1)
    assert len(rows) == 4 and result["largest_difference"] < 1e-4 and result["ratio"] > 0
    assert rows[0]["limit"] == pytest.approx(5 * 48 / (40 + 5 * 7))
    common.show("scoring", rows, result)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["benchmark"] == "scoring"


def test_a_walk_is_counted(monkeypatch):
    monkeypatch.setattr(env, "EPISODES", 20)
    (row,) = env.measure(300, 1)
    assert row["steps/s"] > 0 and row["products"] == 300 and row["MB after the episodes"] >= row["MB before"] > 0


def test_every_benchmark_has_a_command(monkeypatch):
    called = []
    monkeypatch.setattr(bench, "run", lambda name, repeats: called.append((name, repeats)))
    for name in bench.NAMES:
        assert main(["bench", name, "--repeats", "2"]) == 0
    assert called == [(name, 2) for name in bench.NAMES]
