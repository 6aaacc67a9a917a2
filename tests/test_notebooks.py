"""The notebooks: their form, and that each runs, by the runner and alone."""

import ast
import copy
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from qvlib import environments, estimators, runner
from qvlib.agents.arms import ARMS as LISTED
from qvlib.base.paths import resolve
from qvlib.environments import WorldSettings
from qvlib.pipeline.notebook import MARK
from qvlib.pipeline.params import FIXED, make

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "params" / "smoke.yml"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
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
STUDIES = [
    "08_estimators",
    "09_published",
    "10_dpo_or_regression",
    "11_value_search",
    "12_baselines",
]  # of runs that ask for them
OWN = "bring_your_own_environment"  # test_own_environment.py looks at what it shows
ARMS = {
    "sample",
    "greedy",
    "random_n5",
    "likely_n5",
    "likely_n10",
    "demonstrator",
    "script",
    *(
        f"{name}_n{n}"
        for name in ("foreign_q", "kind_only", "within_kind", "oracle")
        for n in (5, 10)
    ),
    "q_n5",
    "q_n10",
    "tuned_policy",
    "search",
    "other_agent_sample",
    "other_agent_q_n5",
    "other_agent_foreign_q_n5",
    "control_q_n5",
    "control_q_n10",
    "self_consistency_n5",
    "agent_evol",
    "eto",
    "best_of_n",
    "lats",
    "reflexion",
    "reflexion_q",
}


def test_they_are_all_there():
    assert [path.stem for path in NOTEBOOKS] == [*NAMES, *STUDIES, OWN]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def python(notebook):
    """The source of the code cells below the parameters, less those that write a file."""
    return [cell.source for cell in code(notebook)[1:] if not cell.source.startswith("%%")]


def meanings(*classes):
    return {name: f.description for c in classes for name, f in c.model_fields.items()}


COMMON = meanings(*FIXED.values(), WorldSettings, *(a.settings for a in LISTED if a.settings))
"""The parameters of every run, whatever its world and estimator, with what they mean."""
OF_CHOICES = meanings(
    *(environments.world_of(name).settings for name in environments.WORLDS),
    *(estimators.estimator_of(name).settings for name in estimators.ESTIMATORS),
)


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


def test_they_hold_no_outputs():
    command = [sys.executable, "-m", "nbstripout", "--verify", *NOTEBOOKS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_one_parameters_cell(notebook, path):
    """Plain values with their meanings; defaults, of parameters that every run has."""
    tagged = [
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])
    ]
    assert tagged == [1] and notebook.cells[0].cell_type == "markdown"
    source = notebook.cells[1].source
    first, *lines = source.splitlines()
    assert first.startswith(f"{MARK}: ")  # papermill's own cell begins with the mark alone
    known = COMMON if path.stem != OWN else {**OF_CHOICES, **COMMON}
    usual = make({}).flat()
    for statement, line in zip(ast.parse(source).body, lines, strict=True):
        name = statement.targets[0].id
        assert line.partition("  # ")[2] == known[name], name
        if path.stem != OWN:
            assert ast.literal_eval(statement.value) == usual[name], name


def test_it_begins_with_one_call(notebook, path):
    calls = [source for source in python(notebook) if "globals()" in source]
    assert len(calls) == 1 and re.search(
        r"^run = pipeline\.until\(\"\w+\", globals\(\)\)", calls[0], re.M
    )
    if path.stem != OWN:  # which first writes the world that its parameters name
        assert calls[0] == notebook.cells[2].source


def bound(source):
    """The names that a cell gives to values at its top level."""
    names, todo = set(), list(ast.parse(source).body)
    scopes = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    inner = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        if isinstance(node, scopes):
            names.add(getattr(node, "name", ""))
        elif not isinstance(node, inner):
            todo += ast.iter_child_nodes(node)
    return names


def test_bound_names_are_found():
    source = "import a.b, c as d\nx, *y = [z for z in w]\nfor i in x: j = i\ndef f(): g = 1\n"
    assert bound(source) == {"a", "d", "x", "y", "i", "j", "f"}


def test_no_cell_rebinds_a_parameter(notebook):
    """What a cell calls `pairs` would else be taken for the parameter by a reader."""
    parameters = {*COMMON, *OF_CHOICES}
    assert {"pairs", "agent", "grid", "environment", "beta", "goals", "max_steps"} <= parameters
    for source in python(notebook):
        assert not bound(source) & parameters, source


def test_it_is_an_argument_in_short_cells(notebook, path):
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert 20 <= len(notebook.cells) <= 30
    assert 0.4 <= len(prose) / len(notebook.cells) <= 0.6
    longest = 16 if path.stem == OWN else 13
    assert all(len(cell.source.splitlines()) <= longest for cell in code(notebook)[1:])
    assert "**Question.**" in prose[0].source and "**Method.**" in prose[0].source
    assert "does not show" in prose[-1].source
    assert path.stem == OWN or "log_run(" in notebook.cells[-1].source


SHOWN = {
    "02_collect": ["mcts.search", "one_search.again"],
    "03_preferences": ["build_pairs", "one_node.with_pair", "one_node.without_pair"],
    "04_train_q": ["dpo_loss", "one_pair.example", "one_pair.log_probs"],
    "05_evaluate": ["Reranked", "one_state.deciding"],
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_method_is_shown_beside_an_example_and_can_be_played_with(name):
    sources = python(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4))
    shown, *examples = SHOWN[name]
    assert any(f"source.code({shown}" in source for source in sources)
    assert all(any(f"{call}(" in source for source in sources) for call in examples)
    (play,) = [source for source in sources if "run this cell" in source]
    assert "save(" not in play and "until(" not in play


def test_prose_holds_no_typed_results(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"arXiv \d+\.\d+|`[^`]*`|\[0, 1\]|\[-1, 1\]", "", cell.source)
            assert not re.search(r"\d\.\d|\d ?%(?! percentile)", text), cell.source


def test_it_says_so_when_a_package_function_is_gone(notebook):
    """Everything that a cell imports from qvlib exists, and so does every ``module.name``."""
    tree = ast.parse("\n".join(python(notebook)))
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "qvlib":
            for alias in node.names:
                value = getattr(importlib.import_module(node.module), alias.name, None)
                if value is None:
                    value = importlib.import_module(f"{node.module}.{alias.name}")
                modules[alias.asname or alias.name] = value
    used = [
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and inspect.ismodule(modules.get(node.value.id))
    ]
    assert used and modules
    assert [name for name, attribute in used if not hasattr(modules[name], attribute)] == []


def kernel(monkeypatch, *folders):
    """Kernels are this Python's, draw progress as text, and import from these folders too."""
    for name, value in runner.KERNEL_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share" / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, (*folders, ROOT))))


def execute(path, parameters, folder, times=1):
    """Run all cells of a notebook so many times in one kernel, as papermill would; the cells."""
    notebook = parameterize_notebook(load_notebook_node(str(path)), parameters)
    once = notebook.cells
    notebook.cells = [copy.deepcopy(cell) for _ in range(times) for cell in once]
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources=resources,
        extra_arguments=runner.KERNEL_ARGUMENTS,
    )
    client.execute()
    return notebook.cells


def displayed(cells):
    """What cells displayed as Markdown."""
    return [
        output["data"]["text/markdown"]
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]


def files(folder):
    """When each file below a folder was written."""
    return {
        file: file.stat().st_mtime_ns
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".lock"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_run_all_twice_in_one_kernel(smoke, monkeypatch, name):
    """The second time shows what the first did, and neither touches the finished run."""
    kernel(monkeypatch)
    given = {
        **yaml.safe_load(SMOKE.read_text()),
        "runs_dir": str(smoke / "runs"),
        "results_dir": str(smoke / "twice"),
        "wandb_mode": "disabled",
    }
    before = files(smoke / "runs")
    cells = execute(ROOT / "notebooks" / f"{name}.ipynb", given, ROOT, times=2)
    half = len(cells) // 2
    assert displayed(cells[:half]) and displayed(cells[half:]) == displayed(cells[:half])
    assert files(smoke / "runs") == before


@pytest.mark.slow
def test_run_all_twice_in_one_kernel_with_a_world_of_ones_own(tmp_path, monkeypatch):
    kernel(monkeypatch)
    given = {"runs_dir": str(tmp_path / "runs"), "results_dir": str(tmp_path / "results")}
    cells = execute(ROOT / "notebooks" / f"{OWN}.ipynb", given, tmp_path, times=2)
    half = len(cells) // 2
    assert displayed(cells[:half]) and displayed(cells[half:]) == displayed(cells[:half])


@pytest.mark.slow
def test_a_changed_parameter_counts_in_the_kernel_that_has_run(smoke, monkeypatch):
    """As who changes a value in the parameters cell and runs all cells again."""
    kernel(monkeypatch)
    given = {**yaml.safe_load(SMOKE.read_text()), "runs_dir": str(smoke / "runs")}
    given |= {"results_dir": str(smoke / "changed"), "wandb_mode": "disabled", "iterations": 24}
    notebook = load_notebook_node(str(ROOT / "notebooks" / "00_tour.ipynb"))
    first = parameterize_notebook(notebook, given).cells
    again = parameterize_notebook(notebook, given).cells
    again[2].source = again[2].source.replace("iterations = 24", "iterations = 2")
    cells = [copy.deepcopy(cell) for cell in (*first, *again)]  # papermill shares all but its own
    both = nbformat.v4.new_notebook(cells=cells)
    for i, cell in enumerate(both.cells):
        cell.id = f"cell-{i}"
    NotebookClient(both, timeout=600, kernel_name="python3").execute()
    printed = ["".join(o.get("text", "") for o in c.get("outputs", ())) for c in both.cells]
    nodes = [int(n) for n in re.findall(r"(\d+) nodes, ", "".join(printed))]
    assert len(nodes) == 2 and nodes[0] > nodes[1]


@pytest.mark.slow
def test_the_q_model_of_another_estimator(smoke, monkeypatch):
    """Notebook 04 with an estimator that is no ratio of two models and tells no loss."""
    kernel(monkeypatch, ROOT / "tests")
    given = {
        **yaml.safe_load(SMOKE.read_text()),
        "runs_dir": str(smoke / "runs"),
        "results_dir": str(smoke / "other"),
        "wandb_mode": "disabled",
        "estimator": "test_estimators:WINS",
    }
    text = "\n".join(displayed(execute(ROOT / "notebooks" / "04_train_q.ipynb", given, ROOT)))
    assert "def fit_wins(" in text and "dpo_loss" not in text
    assert "| smoothing " in text and "log π" not in text
    assert re.search(r"Fitted to \d+ examples", text)


@pytest.mark.slow
def test_the_whole_sequence_runs(smoke):
    results = smoke / "results" / "smoke"
    metrics = json.loads((results / "metrics.json").read_text())
    assert set(metrics["arms"]) == ARMS and set(metrics["gains"]) == ARMS - {"sample"}
    for name in NAMES:
        assert (results / "html" / f"{name}.html").exists()
        executed = results / "notebooks" / f"{name}.ipynb"
        assert executed.stat().st_size < 450_000
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
        "search_iterations": 2,
        "bootstrap": 100,
        "rule_tasks": 0,
    }
    two = "step_dpo: [{}]\nagentrm: [{features: frozen}]\n"
    (tmp_path / "estimators.yml").write_text(two)
    runner.run(
        ROOT / "params" / "hotpotqa-smoke.yml",
        only=["00", "01", "02", "03", "04", "05", "07", "08", "11"],
        overrides={
            **tiny,
            "compare": str(tmp_path / "estimators.yml"),
            "trial_tasks": 3,
            "runs_dir": str(tmp_path / "runs"),
            "results_dir": str(tmp_path / "results"),
            "wandb_mode": "disabled",
        },
    )
    results = tmp_path / "results" / "hotpotqa-smoke"
    studies = ["08_estimators", "11_value_search"]
    names = [*(name for name in NAMES if name != "06_ablations"), *studies]
    text = {name: shown(results / "notebooks", name) for name in names}
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
    assert metrics["groups"] == "groups of questions" and re.search(
        r"bootstrap over \d+ groups of questions", text["07_report"]
    )
    assert "step_dpo" in text["08_estimators"] and "step_dpo" in metrics["estimators"]
    assert re.search(r"`beam` earns [\d.]+ with [\d.]+ steps a task", text["11_value_search"])
    assert re.search(r"\*\*(Steps|No steps) .* saved\*\*", text["11_value_search"])
    assert (results / "figures" / "value_search.png").stat().st_size > 1000
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
        for name in ("00_tour", "01_agent", "02_collect"):
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
    assert "the tree that the run collected" in shown(tmp_path, "02_collect")
