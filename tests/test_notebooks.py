"""The notebooks: their form, and that each runs, by the runner and alone."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from qvlib.pipeline.params import Params
from qvlib.report.tables import resolve

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "params" / "smoke.yml"
NOTEBOOKS = sorted(
    (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")
)  # test_own_environment.py has the other
NAMES = [
    "00_tour",
    "01_agent",
    "02_collect",
    "03_preferences",
    "04_train_q",
    "05_evaluate",
    "06_ablations",
    "07_report",
]
ARMS = {
    "sample",
    "greedy",
    "random_n5",
    "likely_n5",
    "q_n5",
    "q_n10",
    "tuned_policy",
    "mcts",
    "other_agent_sample",
    "other_agent_q_n5",
    "control_q_n5",
    "control_q_n10",
}


def test_they_are_all_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=nbformat.NO_CONVERT)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_format_is_current_and_clean(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"} and set(
        notebook.metadata.language_info
    ) == {"name"}
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in code(notebook):
        assert cell.outputs == [] and cell.execution_count is None


def test_there_is_one_parameters_cell_with_the_defaults(notebook):
    tagged = [
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])
    ]
    assert tagged == [1] and notebook.cells[0].cell_type == "markdown"
    lines = notebook.cells[1].source.splitlines()
    fields = Params.model_fields
    for statement, line in zip(ast.parse(notebook.cells[1].source).body, lines, strict=True):
        name = statement.targets[0].id
        assert ast.literal_eval(statement.value) == fields[name].default, (
            f"{name}: the default is {fields[name].default!r}"
        )
        assert line.partition("  # ")[2] == fields[name].description
    assert "params = from_notebook(globals())" in notebook.cells[2].source


def test_it_is_an_argument_in_short_cells(notebook):
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert 0.4 <= len(prose) / len(notebook.cells) <= 0.6 and len(notebook.cells) <= 30
    assert all(
        len(cell.source.splitlines())
        <= (16 if "parameters" in cell.metadata.get("tags", []) else 13)
        for cell in code(notebook)
    )
    assert "**Question.**" in prose[0].source and "**Method.**" in prose[0].source
    assert re.search(r"does not show|what not", prose[-1].source)
    assert "log_run(" in notebook.cells[-1].source


def test_prose_holds_no_typed_results(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"arXiv \d+\.\d+|`[^`]*`|\[0, 1\]|\[-1, 1\]", "", cell.source)
            assert not re.search(r"\d\.\d|\d ?%(?! percentile)", text), cell.source


def test_it_says_so_when_a_package_function_is_gone(notebook):
    """Every ``module.name`` of qvlib that a cell uses exists."""
    import importlib

    source = "\n".join(cell.source for cell in code(notebook))
    modules = next(
        n
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.ImportFrom) and n.module == "qvlib"
    ).names
    for name in (alias.name for alias in modules):
        module = importlib.import_module(f"qvlib.{name}")
        used = re.findall(rf"\b{name}\.(\w+)", source)
        assert used and all(hasattr(module, attribute) for attribute in used), name


@pytest.mark.slow
def test_the_whole_sequence_runs(smoke):
    results = smoke / "results" / "smoke"
    metrics = json.loads((results / "metrics.json").read_text())
    assert set(metrics["arms"]) == ARMS and set(metrics["gains"]) == ARMS - {"sample"}
    for name in NAMES:
        assert (results / "html" / f"{name}.html").exists()
        executed = results / "notebooks" / f"{name}.ipynb"
        assert executed.stat().st_size < 300_000
        counts = [cell.execution_count for cell in code(nbformat.read(executed, as_version=4))]
        assert counts == list(range(1, len(counts) + 1))
    for picture in (
        "reward_by_arm.png",
        "gains.png",
        "training.png",
        "pairs_by_depth.png",
        "nodes_by_depth.png",
        "cloning.png",
        "tree.svg",
        "tree.html",
        "tour_tree.svg",
        "episode.html",
    ):
        assert (results / "figures" / picture).stat().st_size > 300, picture
    assert {"summary", "arms", "gains", "splits", "stages"} <= {
        path.stem for path in (results / "tables").glob("*.md")
    }


@pytest.mark.slow
def test_one_notebook_by_raw_papermill(smoke, tmp_path):
    out = tmp_path / "out.ipynb"
    done = papermill("02_collect", out, smoke, "-f", SMOKE)
    assert done.returncode == 0, done.stderr[-2000:]
    text = out.read_text()
    assert "Mean value of the root" in text and "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "given, message",
    [
        (("itertions", "3"), "unknown parameter 'itertions'; did you mean 'iterations'?"),
        (("iterations", "many"), "parameter 'iterations'"),
    ],
)
def test_a_mistake_stops_raw_papermill_with_one_clear_line(tmp_path, given, message):
    done = papermill("02_collect", tmp_path / "out.ipynb", tmp_path, "-p", *given)
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "runs").exists()


def papermill(name, out, folder, *arguments):
    """papermill as a user calls it, with its work in ``folder``."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "papermill",
            ROOT / "notebooks" / f"{name}.ipynb",
            out,
            *arguments,
            "-p",
            "runs_dir",
            folder / "runs",
            "-p",
            "results_dir",
            folder / "results",
            "-p",
            "wandb_mode",
            "disabled",
            "--no-progress-bar",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )


def test_folders_are_meant_from_the_project(monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")  # where JupyterLab starts a notebook
    assert resolve("runs") == ROOT / "runs"


def shown(folder, name):
    """What the cells of a rendered notebook printed and displayed as text."""
    cells = code(nbformat.read(folder / f"{name}.ipynb", as_version=4))
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/markdown") or ""
        for cell in cells
        for output in cell.outputs
    )


@pytest.mark.slow
def test_the_same_notebooks_serve_another_world(tmp_path):
    """HotPotQA, smaller than its smoke run.

    Few steps, so that some episodes run out of them and make pairs.
    """
    from qvlib import runner

    tiny = {
        "catalogue_products": 200,
        "max_steps": 3,
        "demonstrations": 200,
        "other_demonstrations": 0,
        "train_tasks": 8,
        "iterations": 6,
        "control_shuffles": 1,
        "test_tasks": 5,
        "test_share": 0.2,
        "dev_share": 0.2,
        "mcts_iterations": 2,
        "bootstrap": 100,
        "rule_tasks": 0,
    }
    runner.run(
        ROOT / "params" / "hotpotqa-smoke.yml",
        only=["00", "01", "03", "07"],
        overrides={
            **tiny,
            "runs_dir": str(tmp_path / "runs"),
            "results_dir": str(tmp_path / "results"),
            "wandb_mode": "disabled",
        },
    )
    results = tmp_path / "results" / "hotpotqa-smoke"
    text = {
        name: shown(results / "notebooks", name)
        for name in ("00_tour", "01_agent", "03_preferences", "07_report")
    }
    assert "The gold answer is" in text["00_tour"] and re.search(
        r"(\d\.\d{3}) by hand, \*\*\1\*\* by the environment", text["00_tour"]
    )
    assert (
        "groups of questions" in text["01_agent"]
        and "<act>" in text["01_agent"]
        and "transcript" in text["01_agent"]
    )
    assert (
        re.search(r"\d+ of 8 searched tasks .* tie", text["03_preferences"])
        and "`finish` against `finish`" in text["03_preferences"]
    )
    assert "second hop" in text["07_report"] and (results / "tables" / "failures.csv").exists()
    metrics = json.loads((results / "metrics.json").read_text())
    assert (
        metrics["groups"] == "groups of questions"
        and "bootstrap over groups of questions" in text["07_report"]
    )
    for name, said in text.items():
        assert not re.search(r"shop|products|click\[|buy now", said, re.IGNORECASE), name


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["a folder", "api:shop-1"])
def test_a_world_without_a_script_and_a_given_agent(tmp_path, monkeypatch, agent):
    """Notebooks 00 and 01 where nobody shows the way but the model itself."""
    from faulty_server import FaultyServer
    from test_chat import told

    if agent != "a folder":
        pytest.importorskip("openai", reason="needs the package openai: pip install -e '.[api]'")
    lm, folder = told("tags"), tmp_path / "model"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    (tmp_path / "ownmaze.py").write_text(
        "from toy import Maze\n\n\ndef make(params):\n    return Maze()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT / 'tests'}:{ROOT}")
    small = {
        "environment": "ownmaze:make",
        "other_demonstrations": 0,
        "demonstrations": 1,
        "train_tasks": 2,
        "test_tasks": 3,
        "iterations": 6,
        "max_action_tokens": 8,
        "processes": 1,
        "filter_actions": "False",
        "api_key_variable": "",
    }
    with FaultyServer(reply=lambda body, rng: f"Action: {'abc'[rng.integers(3)]}") as server:
        given = {
            **small,
            "agent": folder if agent == "a folder" else agent,
            "api_base_url": server.base_url,
        }
        for name in ("00_tour", "01_agent"):
            done = papermill(
                name,
                tmp_path / f"{name}.ipynb",
                tmp_path,
                *(str(word) for one in given.items() for word in ("-p", *one)),
            )
            assert done.returncode == 0, done.stderr[-2000:]
        assert bool(server.seen) == (agent != "a folder")
    text = shown(tmp_path, "00_tour")
    assert (
        "an environment of its own" in text
        and ("It ends with" if server.seen else "Its steps run out") in text
    )
    text = shown(tmp_path, "01_agent")
    assert (
        "as it was given; nothing was cloned" in text
        and "The prompt is a conversation" in text
        and "Task: train" in text
    )
    assert ("log p" in text) == (agent == "a folder") and "demonstrations" not in text
