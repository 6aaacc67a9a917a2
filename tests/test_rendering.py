"""Rendered results are as they were written, or rendered again; a name has one set of values."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from qvlib import runner
from qvlib.cli import main
from qvlib.pipeline.params import load


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two notebooks without a kernel: the first draws, both write a table."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "qvlib"\n')
    (tmp_path / "tiny.yml").write_text("name: tiny\nseed: 3\n")
    monkeypatch.chdir(tmp_path)
    ran = []

    def execute(notebook, parameters):
        ran.append(notebook.stem)
        results = tmp_path / "results" / "tiny"
        for name in ("figures/a.png", "tables/b.csv")[notebook.stem == "00_two" :]:
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            (results / name).unlink(missing_ok=True)
            (results / name).write_text(f"{notebook.stem} made {name}")
        return nbformat.read(notebook, as_version=4)

    monkeypatch.setattr(runner, "execute", execute)
    for name in ("00_one", "00_two"):
        cell = new_code_cell("print(1)", outputs=[new_output("stream", text="1\n")])
        nbformat.write(new_notebook(cells=[cell]), tmp_path / "notebooks" / f"{name}.ipynb")
    ran.clear()
    return tmp_path / "results" / "tiny", ran


def outputs(path):
    notebook = json.loads(path.read_text())
    notebook["cells"][0]["outputs"][0]["text"] = ["0.9\n"]
    path.write_text(json.dumps(notebook))


@pytest.mark.parametrize(
    "name, change, again",
    [
        ("figures/a.png", Path.unlink, ["00_one"]),
        ("figures/a.png", lambda path: path.write_bytes(b"another"), ["00_one"]),
        ("tables/b.csv", Path.unlink, ["00_one", "00_two"]),
        ("html/00_two.html", lambda path: path.write_text("<p>mine</p>"), ["00_two"]),
        ("html/00_two.html", Path.unlink, ["00_two"]),
        ("notebooks/00_one.ipynb", outputs, ["00_one"]),
    ],
)
def test_what_was_changed_or_is_gone_is_rendered_again(project, name, change, again):
    results, ran = project
    for _ in range(2):  # the second finds all as it was, the shared table too
        assert main(["run", "tiny.yml"]) == 0
    assert ran == ["00_one", "00_two"]
    change(results / name)
    ran.clear()
    assert main(["run", "tiny.yml"]) == 0
    assert ran[: len(again)] == again
    ran.clear()
    assert main(["run", "tiny.yml"]) == 0 and ran == []


def test_a_name_has_one_set_of_parameters(project, capsys):
    results, ran = project
    assert main(["run", "tiny.yml"]) == 0
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    ran.clear()
    for more in ([], ["--only", "00_two"]):
        assert main(["run", "tiny.yml", "-p", "seed", "4", *more]) == 2
        error = capsys.readouterr().err
        assert error.startswith(
            "error: results/tiny was rendered with seed = 3, and this run has 4"
        )
        assert "-p name NAME" in error and error.count("\n") == 1
    assert ran == [] and before == {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    assert main(["run", "tiny.yml", "-p", "processes", "2"]) == 0  # decides nothing
    assert main(["run", "tiny.yml", "-p", "seed", "4", "-p", "name", "other"]) == 0
    assert main(["run", "tiny.yml", "-p", "seed", "4", "--force"]) == 0
    assert json.loads((results / "manifest.json").read_text())["parameters"]["seed"] == 4


@pytest.mark.parametrize("content", ["", "[]", '{"parameters": 3}', '{"parameters": {"gone": 1}}'])
def test_results_that_tell_no_parameters_stop_nothing(project, content):
    results, _ = project
    results.mkdir(parents=True)
    (results / "manifest.json").write_text(content)
    runner.must_be_alike(results, load("tiny.yml"))
