"""The rendered notebooks of the smoke run say what the code computes.

Strict nbval, in a fresh folder. In other batches, too, and with the arithmetic of an old processor,
which rounds and sums in other orders. The runner's own run (the fixture ``smoke``), this second
one, and the committed tables must agree.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from killing import differences
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns

from qvlib import runner
from qvlib.agents.arms import ARMS
from qvlib.estimators import ESTIMATORS
from qvlib.pipeline.params import load

ROOT = Path(__file__).parents[1]
RENDERED = ROOT / "results" / "smoke"
STUDIES = runner.studies_of(load(ROOT / "params" / "smoke.yml"))
NAMES = [path.stem for path in runner.find_notebooks(ROOT / "notebooks", studies=STUDIES)]
SANITIZE = Path(__file__).with_name("nbval_sanitize.cfg")
RENEW = "run `qvlib run params/smoke.yml` and commit results/smoke"
OF_THE_PROCESS = ["seconds", "sessions", "finished", "commit"]

# Progress goes to stderr, as text, and rendered copies hold no stderr: neither does the comparison.
CONFTEST = """
def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
"""
SHOWN = "<IPython.core.display.Markdown object>"
OLD_PROCESSOR = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}  # no AVX
STARTUP = "import qvlib.base.terminal; qvlib.base.terminal.use_text_progress(); del qvlib\n"


def nbval(folder):
    """Execute the notebooks of a folder in their order and compare all they print.

    In the runner's environment.
    """
    (folder / "conftest.py").write_text(CONFTEST)
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "progress.py").write_text(STARTUP)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            os.devnull,
            "--rootdir",
            folder,
            "-p",
            "no:cacheprovider",
            "-rA",
            "--color=no",
            "--nbval",
            "--nbval-current-env",
            "--nbval-sanitize-with",
            SANITIZE,
            "--nbval-cell-timeout=600",
            folder,
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=2000,
        env={
            **os.environ,
            **runner.KERNEL_ENVIRONMENT,
            **OLD_PROCESSOR,
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONPATH": str(ROOT),
            "PYTEST_ADDOPTS": "",
        },
    )


def read(folder, name):
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


def injected(notebook):
    """The cell in which papermill sets the parameters of the run."""
    return next(
        cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_rendered_notebook_is_of_the_present_one(name):
    rendered = read(RENDERED / "notebooks", name)
    sources = [cell.source for cell in rendered.cells if cell is not injected(rendered)]
    assert sources == [cell.source for cell in read(ROOT / "notebooks", name).cells], RENEW


@pytest.fixture(scope="session")
def again(tmp_path_factory):
    """The rendered notebooks executed again, in a project of their own, in smaller batches.

    Nothing else is changed.
    """
    folder = tmp_path_factory.mktemp("again")
    for name in ("pyproject.toml", "params"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks").mkdir()
    for name in NAMES:
        notebook = read(RENDERED / "notebooks", name)
        cell = injected(notebook)
        kept = [
            line
            for line in cell.source.splitlines()
            if line.split(" = ")[0] not in ("batch_size", "wandb_mode")
        ]
        cell.source = "\n".join([*kept, "batch_size = 7", "wandb_mode = 'disabled'"])
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    return folder, nbval(folder / "notebooks")


@pytest.mark.slow
@pytest.mark.timeout(3000)  # two runs of smoke, beside other tests
def test_every_cell_prints_again_what_is_committed(again):
    folder, done = again
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{RENEW}, if the change is meant"
    cells = sum(
        cell.cell_type == "code"
        for name in NAMES
        for cell in read(folder / "notebooks", name).cells
    )
    assert re.search(rf"^=+ {cells} passed", done.stdout, re.MULTILINE), done.stdout[-500:]


def tables(folder):
    """The tables and metrics that a run wrote, less what is of the process, not of the result."""
    found = {
        path.name: pd.read_csv(path).drop(columns=OF_THE_PROCESS, errors="ignore")
        for path in sorted((folder / "tables").glob("*.csv"))
    }
    metrics = pd.json_normalize(json.loads((folder / "metrics.json").read_text()))
    return found | {
        "metrics.json": metrics.drop(columns=[c for c in metrics if c.endswith("seconds")])
    }


@pytest.mark.slow
@pytest.mark.timeout(3000)  # two runs of smoke, beside other tests
def test_two_smoke_runs_and_the_committed_one_have_the_same_tables(smoke, again):
    committed = tables(RENDERED)
    assert {
        "arms.csv",
        "gains.csv",
        "splits.csv",
        "stages.csv",
        "summary.csv",
        "metrics.json",
    } <= set(committed)
    for folder in (smoke, again[0]):
        found = tables(folder / "results" / "smoke")
        # a slope divides by the spread of scores, which so small a run makes next to nothing
        assert differences(found, committed, tolerance=1e-7) == {}


def test_smoke_plays_every_estimator_and_baseline():
    """But those that its agent or its estimator cannot play; what failed would not be compared."""
    metrics = json.loads((RENDERED / "metrics.json").read_text())
    assert metrics["not_compared"] == {}
    assert {*ESTIMATORS} - {*metrics["estimators"]} == {"llm_value"}  # asks a chat model
    known = {arm.name for arm in ARMS}
    elsewhere = {"saycan_n5", "beam", "best_first"}  # of values: params/hotpotqa-smoke.yml
    assert known - {*metrics["arms"]} == {"rft", *elsewhere}  # RFT in rounds is agent_evol


def printed():
    """The text of every Markdown cell output and of what was printed, in the rendered notebooks."""
    for name in NAMES:
        for cell in read(RENDERED / "notebooks", name).cells:
            for output in cell.get("outputs", []):
                yield output.get("text") or output.get("data", {}).get("text/markdown") or ""


def sanitized(text):
    for pattern, replacement in get_sanitize_patterns(SANITIZE.read_text()):
        text = re.sub(pattern, replacement, text)
    return text


def hidden(text):
    """The columns in which a changed digit makes no difference to nbval.

    For a table of two columns, the rows.
    """
    header, found = "", set()
    for line in text.splitlines():
        header = "" if not line.startswith("|") else header or line
        for digit in re.finditer(r"\d", line):
            other = line[: digit.start()] + str((int(digit[0]) + 1) % 10) + line[digit.end() :]
            if sanitized(other) == sanitized(line):
                row = line.split("|")
                column = line[: digit.start()].count("|")
                found.add(
                    (
                        row[1] if len(row) == 4 else header.split("|")[column] if header else line
                    ).strip()
                )
    return found


def test_only_times_and_commits_are_hidden():
    names = set().union(*map(hidden, printed()))
    assert set(OF_THE_PROCESS) - {"commit"} <= names  # a commit may be without digits
    assert all(name in OF_THE_PROCESS or name.endswith(" seconds") for name in names), names


@pytest.mark.slow
def test_strict_nbval_fails_for_one_changed_digit(tmp_path):
    """The same table shown by two notebooks: one remembers other seconds, one another digest."""
    text = next(text for text in printed() if "digest" in text and "commit" in text)
    row = next(line for line in text.splitlines() if line.startswith("| agent "))
    digest, seconds = re.search(r"[0-9a-f]{8}", row)[0], re.search(r"\d+\.\d", row)[0]
    changed = {
        "seconds": text.replace(seconds, "98765.4"),
        "digest": text.replace(digest, digest[::-1]),
    }
    source = f"from IPython.display import Markdown, display\ndisplay(Markdown({text!r}))"
    for name, remembered in changed.items():
        assert remembered != text
        output = new_output("display_data", {"text/markdown": remembered, "text/plain": SHOWN})
        notebook = new_notebook(cells=[new_code_cell(source, outputs=[output], execution_count=1)])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    done = nbval(tmp_path)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout, done.stdout[-3000:]
    assert re.search(r"^PASSED seconds.ipynb", done.stdout, re.MULTILINE)
    assert (
        re.search(r"^FAILED digest.ipynb", done.stdout, re.MULTILINE)
        and "Cell outputs differ" in done.stdout
    )
