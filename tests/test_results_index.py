"""The front page of the results."""

import json

import pytest

from qvlib.cli import main
from qvlib.errors import QvlibError
from qvlib.results_index import write_results_index

METRICS = {
    "run": "quick",
    "arms": {"sample": {"reward_mean": 0.347, "success_rate": 0.1, "ci95": [0.3, 0.4], "tasks": 300, "seeds": 3},
             "reranked": {"reward_mean": 0.476, "success_rate": 0.25, "ci95": [0.43, 0.52], "tasks": 300, "seeds": [0, 1]}},
    "gains": {"reranked": {"mean": 0.129, "ci95": [0.09, 0.17], "relative": 0.372}},
    "gains_over_greedy": {"reranked": {"mean": 0.1, "ci95": [0.05, 0.15], "relative": 0.3}},
    "gap_closed": 0.62,
    "cost": {"reranked_tokens": 1234567, "reranked_seconds": 1.25},
}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "results" / "quick"
    for path in ("notebooks/07_report.ipynb", "html/07_report.html", "figures/gain.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder


def test_a_section_a_run(run, capsys):
    assert main(["index", str(run.parent)]) == 0
    text = (run.parent / "README.md").read_text()
    assert "| sample | 0.347 | [0.300, 0.400] | 10.0% |  |  |  |  | 300 | 3 |" in text
    assert "| reranked | 0.476 | [0.430, 0.520] | 25.0% | +0.129 | [+0.090, +0.170] | +37.2% | +0.100 | 300 | 2 |" in text
    assert "62%" in text and "reranked tokens 1,234,567" in text
    for link in ("(quick/notebooks/07_report.ipynb)", "(quick/html/07_report.html)", "![gain](quick/figures/gain.png)"):
        assert link in text


def test_the_manifest_is_told(run):
    (run / "manifest.json").write_text(json.dumps({
        "finished": "2026-01-02T03:04:05+00:00", "seconds": 100, "git": {"commit": "a" * 40, "dirty": True},
        "machine": {"cpus": 4, "device": "cpu"}}))
    text = write_results_index(run.parent).read_text()
    assert "commit `aaaaaaaaaa` with uncommitted changes, 4 processors, cpu, notebooks took 1 min 40 s" in text


def test_only_what_the_table_needs_is_required(run):
    (run / "metrics.json").write_text(json.dumps({"run": "quick", "arms": METRICS["arms"]}))
    assert "| reranked | 0.476 " in write_results_index(run.parent).read_text()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"run": "quick", "arms": {"sample": {}}}'])
def test_a_broken_file_is_named(run, content):
    (run / "metrics.json").write_text(content)
    with pytest.raises(QvlibError, match=r"metrics\.json .*07_report"):
        write_results_index(run.parent)


def test_no_runs_is_no_error(tmp_path):
    assert "No runs yet" in write_results_index(tmp_path).read_text()
