"""The front page of the results."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qvlib.base.errors import QvlibError
from qvlib.cli import main
from qvlib.pipeline.params import make
from qvlib.report import run_page
from qvlib.report.front_page import _headline, write_front_page
from qvlib.report.results_index import write_results_index
from qvlib.report.run_notes import run_notes
from qvlib.runs.provenance import commits_since
from qvlib.runs.stage import Stage
from qvlib.tools import needs

METRICS = {
    "run": "quick",
    "arms": {
        "sample": {
            "reward_mean": 0.347,
            "success_rate": 0.1,
            "ci95": [0.3, 0.4],
            "tasks": 300,
            "seeds": 3,
        },
        "reranked": {
            "reward_mean": 0.476,
            "success_rate": 0.25,
            "ci95": [0.43, 0.52],
            "tasks": 300,
            "seeds": [0, 1],
        },
    },
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


def page_of(run):
    """The text of a run's own page."""
    write_results_index(run.parent)
    return (run / "README.md").read_text()


def test_a_page_a_run(run, capsys):
    assert main(["index", str(run.parent)]) == 0
    assert "[`quick`](quick/README.md)" in (run.parent / "README.md").read_text()
    text = (run / "README.md").read_text()
    assert text.startswith("# quick\n\n[All results](../README.md)\n")
    assert "| sample | 0.347 | [0.300, 0.400] | 10.0% |  |  |  |  | 300 | 3 |" in text
    assert (
        "| reranked | 0.476 | [0.430, 0.520] | 25.0% | +0.129 | [+0.090, +0.170] | +37.2% "
        "| +0.100 | 300 | 2 |" in text
    )
    assert "reranked tokens 1,234,567" in text
    for link in (
        "(notebooks/07_report.ipynb)",
        "(html/07_report.html)",
        "![gain](figures/gain.png)",
    ):
        assert link in text


@pytest.mark.parametrize(
    "name, iterations, command",
    [
        ("quick", 30, ", by `qvlib run params/quick.yml`"),
        ("quick", 7, ", by `qvlib run params/quick.yml`, since changed in `iterations`"),
        ("mine", 30, ""),
    ],
)
def test_the_manifest_is_told(run, name, iterations, command):
    (run / "manifest.json").write_text(
        json.dumps(
            {
                "finished": "2026-01-02T03:04:05+00:00",
                "seconds": 100,
                "git": {"commit": "a" * 40, "dirty": True},
                "machine": {"cpus": 4, "device": "cpu"},
                "name": name,
                "parameters": {"iterations": iterations, "processes": 7},
            }
        )
    )
    text = page_of(run)
    assert (
        "commit `aaaaaaaaaa` with uncommitted changes, 4 processors, cpu, notebooks took 1 min 40 s"
        f"{command}. How old that code is, this copy of qvlib does not tell."
    ) in text


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with code, notebooks and results; commits by their messages."""
    folder, commits = tmp_path / "checkout", {}
    (folder / "qvlib").mkdir(parents=True)
    git(folder, "init", "-q")
    for message, path in (
        ("first", "qvlib/__init__.py"),
        ("prose", "README.md"),
        ("code", "qvlib/core.py"),
        ("notebook", "notebooks/00.ipynb"),
        ("results", "results/README.md"),
    ):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(message)
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", message)
        commits[message] = git(folder, "rev-parse", "HEAD")
    return folder, commits


def test_the_age_of_code_is_counted_in_changes_of_it(checkout):
    folder, commits = checkout
    for message, count in (("first", 2), ("prose", 2), ("code", 1), ("notebook", 0)):
        found = commits_since(commits[message], run_page.CODE, folder / "qvlib")
        assert found == (count, commits["notebook"])
    assert commits_since(commits["results"], ["qvlib"], folder / "qvlib") == (0, commits["code"])
    for unknown in ("b" * 40, "", "--all", "HEAD"):
        assert commits_since(unknown, ["qvlib"], folder / "qvlib") is None
    git(folder, "checkout", "-q", commits["code"])  # what came later is not in this history
    assert commits_since(commits["results"], ["qvlib"], folder / "qvlib") is None
    installed = folder / "site-packages" / "qvlib"  # in a repository of the user's
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert commits_since(commits["first"], ["qvlib"], installed) is None


@pytest.mark.parametrize("name", ["quick", "smoke"])
@pytest.mark.parametrize(
    "found, said",
    [
        (None, "How old that code is, this copy of qvlib does not tell."),
        ((0, "c" * 40), "The code is the same today (`cccccccccc`)."),
        ((1, "c" * 40), "**Rendered by older code**: 1 commit to qvlib or notebooks came after it"),
        ((154, "c" * 40), "**Rendered by older code**: 154 commits to qvlib or notebooks came"),
    ],
)
def test_a_page_says_how_old_its_code_is(run, monkeypatch, name, found, said):
    monkeypatch.setattr(run_page, "commits_since", lambda commit, paths: found)
    git = {"commit": "a" * 40, "dirty": False}
    (run / "manifest.json").write_text(json.dumps({"git": git, "machine": {}}))
    run = run.rename(run.parent / name)
    text = page_of(run)
    assert said in text and "commit `aaaaaaaaaa`" in text
    assert page_of(run) == text


def test_a_broken_manifest_is_named(run):
    (run / "manifest.json").write_text('{"git": {"commit": 7, "dirty": false}}')
    with pytest.raises(QvlibError, match=r"manifest\.json misses or misstates"):
        write_results_index(run.parent)


def test_rendered_results_are_read_without_the_runs(tmp_path, monkeypatch):
    """As of a clone, which has no folder `runs`: index, front page and needs read results alone."""
    root = Path(__file__).parents[1]
    for part in ("metrics.json", "manifest.json", "tables/pair_rules.csv"):
        (tmp_path / "results" / "quick" / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "results" / "quick" / part, tmp_path / "results" / "quick" / part)
    monkeypatch.setattr(Stage, "__init__", None)  # nothing opens a stage
    assert "`quick`" in write_results_index(tmp_path / "results").read_text()
    assert (tmp_path / "results" / "quick" / "README.md").read_text().startswith("# quick\n")
    params = make({"name": "probe", "runs_dir": str(tmp_path / "runs")})
    assert needs.measured(tmp_path / "results" / "quick", params).name == "quick"
    assert not (tmp_path / "runs").exists()


def test_only_what_the_table_needs_is_required(run):
    (run / "metrics.json").write_text(json.dumps({"run": "quick", "arms": METRICS["arms"]}))
    assert "| reranked | 0.476 " in page_of(run)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"run": "quick", "arms": {"sample": {}}}'])
def test_a_broken_file_is_named(run, content):
    (run / "metrics.json").write_text(content)
    with pytest.raises(QvlibError, match=r"metrics\.json .*07_report"):
        write_results_index(run.parent)


def test_no_runs_is_no_error(tmp_path):
    assert "No runs yet" in write_results_index(tmp_path).read_text()


def test_benchmarks_are_shown_where_they_were_kept(run):
    assert "Benchmarks" not in write_results_index(run.parent).read_text()
    kept = run.parent / "bench"
    kept.mkdir()
    (kept / "scoring.md").write_text("Five replies.\n\n| ratio |\n| ----: |\n| 3.9 |\n")
    (kept / "env.md").write_text("Random walks.\n")
    (kept / "env.png").touch()
    text = write_results_index(run.parent).read_text()
    assert text.endswith(
        "## Benchmarks\n\n[All on one page](bench/README.md): [env](bench/env.md), "
        "[scoring](bench/scoring.md).\n"
    )
    assert (kept / "README.md").read_text() == (
        "# Benchmarks\n\n[All results](../README.md)\n\n"
        "## env\n\nRandom walks.\n\n![env](env.png)\n\n"
        "## scoring\n\nFive replies.\n\n| ratio |\n| ----: |\n| 3.9 |\n"
    )
    assert write_results_index(run.parent).read_text() == text  # its own page is no benchmark


def test_a_baseline_that_earned_nothing_has_no_relative_gain(run, tmp_path):
    gain = METRICS["gains"]["reranked"] | {"relative": None}
    (run / "metrics.json").write_text(json.dumps(METRICS | {"gains": {"reranked": gain}}))
    assert "| +0.129 | [+0.090, +0.170] |  | +0.100 |" in page_of(run)
    arms = METRICS["arms"] | {"q_n5": METRICS["arms"]["reranked"]}
    headline = _headline(METRICS | {"arms": arms, "gains": {"q_n5": gain}}, {}, run, tmp_path)
    assert "| `q_n5` | 0.476 | [0.430, 0.520] | +0.129 | [+0.090, +0.170] |  | 25.0% |" in headline


def test_the_front_page_is_written_from_files(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "# x\n<!-- result: begin -->\nold\n<!-- result: end -->\nmid\n"
        "<!-- times: begin -->\n<!-- times: end -->\n"
        "<!-- files: begin -->\n<!-- files: end -->\n"
        "<!-- notebooks: begin -->\n<!-- notebooks: end -->\nend\n"
    )
    (run / "notebooks" / "00_tour.ipynb").write_text(
        json.dumps(
            {"cells": [{"source": "# 00\n\n**Question.** What is\na tree?\n\n**Method.** Look."}]}
        )
    )
    metrics = METRICS | {"other_agent_gain": {"mean": 0.069, "ci95": [0.03, 0.1], "relative": 0.31}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "manifest.json").write_text(
        json.dumps(
            {"name": "quick", "seconds": 100, "notebooks": {"00_tour": 9.5}, "machine": {"cpus": 2}}
        )
    )
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "quick.yml").write_text(
        "# The whole method\n# on a laptop. More.\n\n# The run\nseed: 0  # a seed\n"
    )
    (tmp_path / "params" / "huge.yml").write_text("# Too much for here.\n\nseed: 1\n")
    write_front_page(readme, run.parent)
    text = readme.read_text()
    assert (
        "| [`params/quick.yml`](params/quick.yml) | The whole method on a laptop "
        "| 1 min 40 s on 2 cores |" in text
    )
    assert "| [`params/huge.yml`](params/huge.yml) | Too much for here | not run here |" in text
    assert (
        "old" not in text
        and "| `sample` | 0.347 | [0.300, 0.400] |" in text
        and "+0.069 [+0.030, +0.100] (+31%)" in text
    )
    assert "alone took 1 min 40 s on 2 cores." in text and "`make run`" not in text
    assert (
        "| [00_tour](notebooks/00_tour.ipynb) | What is a tree? | 9.5 s "
        "| [notebook](results/quick/notebooks/00_tour.ipynb) |" in text
    )
    assert "held-out tasks on products unseen in training, seed 0" in text
    (run / "metrics.json").write_text(json.dumps(metrics | {"groups": "games"}))
    write_front_page(readme, run.parent)
    assert (
        "on games unseen in training, seed 0, terminal reward in [0, 1], paired by task, "
        "bootstrap intervals over games." in readme.read_text()
    )
    assert "The other runs" not in readme.read_text()
    other, less = run.parent / "other", {"mean": 0.05, "ci95": [0.01, 0.09]}
    other.mkdir()
    told = METRICS | {"run": "other", "reads": False, "against": {"q_n5": {"foreign": less}}}
    (other / "metrics.json").write_text(json.dumps(told))
    write_front_page(readme, run.parent)
    row = next(line for line in readme.read_text().splitlines() if line.startswith("| [`other`]"))
    assert row.startswith("| [`other`](results/other/README.md) | 1 | 300 | 0.347 | ")
    assert row.endswith(" |  |  | +0.050<br>[+0.010, +0.090] |  |  |  | not shown |")
    (run.parent / "times.json").write_text('{"run": 480, "test": 200, "cpus": 2}')
    write_front_page(readme, run.parent)
    assert "`make run` 8 min 0 s, `make test` 3 min 20 s." in readme.read_text()
    assert "on the same cores" not in readme.read_text()
    (run.parent / "times.json").write_text('{"run": 480, "cpus": 2, "beside": "tests"}')
    write_front_page(readme, run.parent)
    assert ", beside tests on the same cores: `make run` 8 min 0 s." in readme.read_text()
    assert readme.read_text().startswith("# x\n") and readme.read_text().endswith(
        "<!-- notebooks: end -->\nend\n"
    )


def test_a_table_says_what_q_is_and_whose_episodes_a_run_shows_again(tmp_path):
    told = {}
    for name, digest, known in (
        ("one", "aa", {"estimator": "step_dpo", "prior_weight": 0.0}),
        ("again", "aa", {"estimator": "step_dpo", "prior_weight": 0.2}),
        ("since", "aa", {"estimator": "step_dpo", "arms": {"q_n5": {"reward_mean": 0.5}}}),
        ("heads", "bb", {"estimator": "agentrm", "prior_weight": 3.0}),
        ("old", "", {}),
    ):
        (tmp_path / name / "tables").mkdir(parents=True)
        if digest:
            (tmp_path / name / "tables" / "stages.csv").write_text(
                f"stage,seed,digest\nagent,0,cc\nepisodes/q_n5,0,{digest}\n"
            )
        told[tmp_path / name] = known
    assert {run.name: notes for run, notes in run_notes(told).items()} == {
        "one": [],
        "again": ["Q + 0.2 log π", "episodes of `one`"],
        "since": ["chain of `one`, by other code"],
        "heads": ["Q of `agentrm` + 3 log π"],
        "old": [],
    }


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A copy of the project's pages, results and parameters, as they are committed."""
    root, copy = Path(__file__).parents[1], tmp_path_factory.mktemp("committed")
    if not (root / "results" / "quick" / "metrics.json").exists():
        pytest.skip("results/quick is not there: `make run` makes it")
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "results"], cwd=root, capture_output=True, text=True
    ).stdout
    if changed:
        pytest.skip(
            "results were made anew since the last commit: `qvlib index --front-page full` "
            "writes them down"
        )
    shutil.copy(root / "README.md", copy)
    for folder in ("results", "params"):
        shutil.copytree(root / folder, copy / folder)
    return copy


def test_the_projects_front_page_shows_the_committed_results(committed):
    was = (committed / "README.md").read_text()
    write_front_page(committed / "README.md", committed / "results", "full")
    assert (committed / "README.md").read_text() == was, "run `qvlib index --front-page full`"


def test_the_index_and_each_runs_page_show_the_committed_results(committed):
    """But for how old their code is, which each commit changes."""
    age = re.compile(
        r"\d+ commits? behind|the same today|age not known"
        r"|\*\*Rendered by older code.*`\.$|The code is the same today.*$|How old that code is.*$",
        re.MULTILINE,
    )

    def pages():
        found = sorted((committed / "results").glob("**/README.md"))
        return {str(p.relative_to(committed)): age.sub("AGE", p.read_text()) for p in found}

    was = pages()
    write_results_index(committed / "results")
    assert pages() == was, "run `qvlib index --front-page full` and commit the pages"


def test_a_readme_without_markers_is_told(run, tmp_path):
    (run / "manifest.json").write_text('{"name": "quick", "seconds": 1, "notebooks": {}}')
    (tmp_path / "README.md").write_text("# x\n")
    with pytest.raises(QvlibError, match="no lines <!-- result: begin"):
        write_front_page(tmp_path / "README.md", run.parent)
