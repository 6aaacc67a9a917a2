"""Whose folders, notebooks and parameter files are meant, wherever one stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qvlib import runner
from qvlib.base import paths
from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path, find, project_root, resolve
from qvlib.cli import main
from qvlib.pipeline.params import load

ROOT = Path(__file__).parents[1]


def project(folder: Path, toml: str) -> Path:
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(toml)
    return folder


QVLIB = '[project]\nname = "qvlib"\n'


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """qvlib as a wheel has it: without its notebooks and parameter files; stands elsewhere."""
    package = tmp_path / "site-packages" / "qvlib" / "base"
    package.mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(package / "paths.py"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_project_one_stands_in_goes_first(tmp_path, monkeypatch):
    own = project(tmp_path / "checkout", QVLIB)
    monkeypatch.chdir(own / "notebooks")
    assert project_root() == own and resolve("runs") == own / "runs"
    assert display_path(own / "runs" / "a") == "runs/a"


def test_elsewhere_it_is_the_one_that_qvlib_was_imported_from(tmp_path, monkeypatch):
    """As for papermill, started in another folder on a notebook of the project."""
    monkeypatch.chdir(tmp_path)
    assert project_root() == ROOT and resolve("runs") == ROOT / "runs"
    assert find("params/quick.yml") == ROOT / "params" / "quick.yml"
    assert load("params/quick.yml").run.name == "quick"
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "quick.yml").write_text("name: mine\n")
    assert load("params/quick.yml").run.name == "mine"
    monkeypatch.setenv(paths.PROJECT, str(tmp_path))
    assert project_root() == tmp_path


@pytest.mark.parametrize(
    "toml",
    ["", '[project]\nname = "theirs"\n', "[project]\nname = 7\n", "project = 1", "not toml ["],
)
def test_a_project_of_another_name_is_never_taken(tmp_path, monkeypatch, toml):
    theirs = project(tmp_path / "theirs", toml)
    monkeypatch.chdir(theirs)
    assert project_root() == ROOT


def test_without_its_notebooks_it_says_how_to_get_them(installed, monkeypatch, capsys):
    theirs = project(installed / "theirs", '[project]\nname = "theirs"\n')
    (theirs / "notebooks" / "00_mine.ipynb").write_text("{}")
    monkeypatch.setattr(runner, "execute", lambda *_: pytest.fail("another's notebook was run"))
    for folder in (installed, theirs):
        monkeypatch.chdir(folder)
        assert project_root() == folder
        (folder / "mine.yml").write_text("name: mine\n")
        for arguments, message in (
            (
                ["run", "params/quick.yml"],
                "no such parameter file; see params/ of the project, which",
            ),
            (
                ["run", "mine.yml"],
                "the notebooks are not installed with qvlib: run it from a folder",
            ),
        ):
            assert main(arguments) == 2
            error = capsys.readouterr().err
            assert message in error and paths.SOURCE in error and error.count("\n") == 1
        assert not (folder / "runs").exists() and not (folder / "results").exists()


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "~no-such-user/a"])
def test_a_path_that_cannot_be_is_told(path):
    for make in (resolve, find, load):
        with pytest.raises(QvlibError, match=r"correct it|write the folder out") as caught:
            make(path)
        assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_a_current_folder_that_is_gone_is_told(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(QvlibError, match="the current folder is gone; change to one"):
        resolve("runs")
    monkeypatch.chdir(tmp_path)


def test_a_system_that_cannot_lock_is_told_in_one_line(tmp_path):
    """As on Windows, whose Python has neither module."""
    code = (
        "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "from qvlib.cli import main; sys.exit(main(['run', 'params/quick.yml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("error: qvlib needs Linux or macOS") and done.stderr.count("\n") == 1
    )
    assert "You need Linux or macOS" in (ROOT / "README.md").read_text()


LOOK = """
import papermill, sys, nbformat
from nbformat.v4 import new_code_cell, new_notebook
first = new_code_cell('# Parameters: x\\nname = "papermilled"\\nwandb_mode = "disabled"')
first.metadata["tags"] = ["parameters"]
look = '''from qvlib.base.paths import resolve
from qvlib.pipeline.notebook import notebook_parameters
params = notebook_parameters(globals())
print(resolve(params.run.runs_dir), resolve(params.run.results_dir), params.run.seed)'''
nbformat.write(new_notebook(cells=[first, new_code_cell(look)]), sys.argv[1])
done = papermill.execute_notebook(
    sys.argv[1], "out.ipynb", {"seed": 3}, kernel_name="python3", language="python",
    progress_bar=False,
)
print(done.cells[-1].outputs[0]["text"])
"""


@pytest.mark.slow
def test_papermill_from_another_folder_works_in_the_project(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    kernels = {**runner.KERNEL_ENVIRONMENT, "JUPYTER_PATH": runner._kernels_first()}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path / "02_look.ipynb")],
        capture_output=True,
        text=True,
        cwd=tmp_path / "elsewhere",
        env={**os.environ, **kernels, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip().splitlines()[-1] == f"{ROOT / 'runs'} {ROOT / 'results'} 3", (
        done.stderr
    )
