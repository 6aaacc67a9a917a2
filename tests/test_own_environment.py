"""An environment of one's own: named by an import path, made in the notebook that shows how."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from toy import Fixed

from qvlib import environments, pipeline
from qvlib.agents.search import search_config
from qvlib.base import imports
from qvlib.base.errors import QvlibError
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import search
from qvlib.environments.world import data_hashes, demonstrator
from qvlib.pipeline.params import make

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "bring_your_own_environment.ipynb"
MAZE = """
from qvlib.base.settings import setting
from qvlib.environments import Names, World, WorldSettings
from toy import Maze, Scripted

class Own(Maze):
    def demonstrator(self):
        return Scripted()

def make(settings):
    return Own(max_steps=settings.max_steps)

def bare(settings):
    return Maze()

def nothing(settings):
    return object()

def strict(settings):
    return Maze(max_steps=2, timeout_value=-1.0)

def hashed(settings):
    world = Own()
    object.__setattr__(world, "data_hashes", lambda: {"streets.txt": "0"})
    object.__setattr__(world, "skipped", 3)
    return world

class Settings(WorldSettings):
    depth: int = setting(2, "choices of a maze", ge=1)

def write(settings, folder, processes=0):
    (folder / "depth.txt").write_text(str(settings.depth))

def build(settings, folder):
    return Own(int((folder / "depth.txt").read_text()), max_steps=settings.max_steps)

WORLD = World("maze", Settings, build, "Find the way.", Names("streets"), make_data=write)
LOST = World("lost", Settings, lambda settings, folder: object())
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that can be imported in this test only, and its file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MAZE)
    yield name, tmp_path / f"{name}.py"
    sys.modules.pop(name, None)
    imports._imported.cache_clear()


def params(tmp_path, environment, **changes):
    return make({"environment": environment, "runs_dir": str(tmp_path / "runs"), **changes})


def world(given):
    """The environment, written on the first call and then read from the stage on disk."""
    return pipeline.context_of(given).environment


def test_by_import_path(tmp_path, module):
    name, file = module
    given = params(tmp_path, f"{name}:make", max_steps=3)
    context = pipeline.context_of(given)
    environment = context.environment
    assert environment.name == "maze" and environment.max_steps == 3
    assert context.demonstrator().actions == ("a", "b", "c")
    assert list(data_hashes(context.world, environment)) == [file.name]
    assert world(given).tasks("test") == environment.tasks("test")  # from the stage on disk
    others = (f"{name}:bare", "webshop")
    assert given.digest("data") not in {
        make({"environment": other, "max_steps": 3}).digest("data") for other in others
    }


def test_what_the_environment_itself_tells_is_kept(tmp_path, module):
    name, file = module
    given = params(tmp_path, f"{name}:hashed")
    world(given)
    manifest = (next((tmp_path / "runs").glob("data-*")) / "manifest.json").read_text()
    assert (
        '"streets.txt": "0"' in manifest
        and '"skipped_goals": 3' in manifest
        and file.name in manifest
    )


def test_a_file_that_was_changed_stops_a_run_that_goes_on(tmp_path, module):
    name, file = module
    given = params(tmp_path, f"{name}:make")
    world(given)
    file.write_text(MAZE + "# changed\n")
    world(given)  # what was imported still runs
    sys.modules.pop(name)
    imports._imported.cache_clear()
    with pytest.raises(QvlibError, match="have changed since the run began"):
        world(given)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", "no function 'absent'; write `def absent"),
        ("Maze.x", "environment 'own_.*:Maze.x': no such name"),
        (
            "nothing",
            "has no name, max_steps, timeout_value, tasks, reset, step, accepts; "
            "see qvlib.core.types.Environment",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, module, function, message):
    with pytest.raises(QvlibError, match=message):
        world(make({"environment": f"{module[0]}:{function}", "runs_dir": str(tmp_path / "runs")}))


def test_the_limits_are_the_environments_own_and_what_is_typed_is_not_passed_over(tmp_path, module):
    name = f"{module[0]}:strict"
    strict = world(params(tmp_path, name))
    (task, *_) = strict.tasks("train")
    config = search_config(make({}).search)  # of a run whose timeout_value is -0.5
    (tree,) = lockstep([search(strict, task, config, 0)], Fixed(["loop"]), 1)
    assert {node.value for node in tree.root.walk() if node.visits} == {-1.0}
    assert world(params(tmp_path, name, timeout_value=-1.0, max_steps=2)).timeout_value == -1.0
    for typed in ({"timeout_value": -0.5}, {"max_steps": 10}):
        (key,) = typed
        with pytest.raises(QvlibError, match=f"was given {key} = .* has .*; let it take settings"):
            world(params(tmp_path / key, name, **typed))


def test_a_world_with_settings_and_data_of_its_own(tmp_path, module):
    name, file = module
    own_world = environments.world_of(f"{name}:WORLD")
    settings = own_world.settings(environment=f"{name}:WORLD", max_steps=3)
    own_world.make_data(settings, tmp_path)
    environment = own_world.build(settings, tmp_path)
    assert (environment.depth, environment.max_steps) == (2, 3)
    assert list(data_hashes(own_world, environment)) == [file.name]
    assert demonstrator(own_world, environment).actions == ("a", "b", "c")
    lost = environments.world_of(f"{name}:LOST")
    with pytest.raises(QvlibError, match="LOST': what it returned has no name, max_steps"):
        lost.build(lost.settings(environment=f"{name}:LOST"), tmp_path)


def test_a_world_of_ones_own_goes_through_the_stage(tmp_path, module):
    given = params(tmp_path, f"{module[0]}:WORLD")
    assert world(given).depth == world(given).depth == 2  # written, then from the stage on disk
    kind = pipeline.context_of(given).world
    assert kind.names.groups == "streets" and kind.instructions == "Find the way."


def test_a_module_that_is_not_there(tmp_path):
    for path in ("nowhere_at_all:make", "qvlib.nowhere:make"):
        missing, file = path.partition(":")[0], path.partition(":")[0].replace(".", "/")
        with pytest.raises(QvlibError, match=f"no module '{missing}'; put {file}.py"):
            world(params(tmp_path, path))


def test_an_import_that_fails_inside_the_module_is_shown_as_it_is(tmp_path, module):
    module[1].write_text("import missing_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
        world(params(tmp_path, f"{module[0]}:make"))


def test_no_demonstrator(tmp_path, module):
    given = params(tmp_path, f"{module[0]}:bare")
    with pytest.raises(QvlibError, match=r"has no demonstrator\(\).*set agent"):
        pipeline.context_of(given).demonstrator()


def test_how_often_its_demonstrator_errs_is_for_itself_to_say(tmp_path, module):
    given = params(tmp_path, f"{module[0]}:make", demonstrator_errors=0.5)
    with pytest.raises(QvlibError, match=r"demonstrator_errors.*leave it at 1\.0"):
        pipeline.context_of(given).demonstrator()


@pytest.mark.parametrize("wrong", ["webshp", "kitchen:", ":make", "a b:make", "kitchen.py"])
def test_neither_a_name_nor_a_path(wrong):
    with pytest.raises(
        QvlibError,
        match=r"(one of webshop, hotpotqa, textworld, scienceworld|did you mean webshop).*"
        "module:factory",
    ):
        make({"environment": wrong})


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


def test_the_notebook_is_clean_and_an_argument(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3" and set(notebook.metadata) == {
        "kernelspec",
        "language_info",
    }
    assert 20 <= len(notebook.cells) <= 32 and 0.4 <= 1 - len(code) / len(notebook.cells) <= 0.6
    assert "**Question.**" in notebook.cells[0].source and "**Method.**" in notebook.cells[0].source
    assert "does not show" in notebook.cells[-1].source
    tagged = [
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])
    ]
    assert tagged == [1]
    assert all(
        len(cell.source.splitlines()) <= 16
        for cell in code
        if "parameters" not in cell.metadata.get("tags", [])
    )


def test_its_parameters_are_real(notebook, tmp_path, module):
    source = notebook.cells[1].source
    given = {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in ast.parse(source).body
    }
    assert given["environment"] == "kitchen:make"  # a file that the notebook writes
    given["environment"] = f"{module[0]}:make"
    meanings = {
        name: type(section).model_fields[name].description
        for _, section in make(given).sections
        for name in section.names()
    }
    said = [line.partition("  # ")[2] for line in source.splitlines() if "  # " in line]
    assert said == [meanings[name] for name in given]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """From writing the world to the table of arms, in a folder that has nothing of the project."""
    small = {
        "demonstrations": 120,
        "train_tasks": 8,
        "iterations": 6,
        "test_tasks": 6,
        "search_iterations": 2,
        "bootstrap": 100,
    }
    given = [word for name, value in small.items() for word in ("-p", name, str(value))]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "papermill",
            NOTEBOOK,
            tmp_path / "out.ipynb",
            *given,
            "--cwd",
            tmp_path,
            "--no-progress-bar",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    shown = "\n".join(
        str(out.get("text", "")) + str(out.get("data", {}).get("text/markdown", ""))
        for cell in cells
        if cell.cell_type == "code"
        for out in cell.outputs
    )
    assert re.search(r"Every rule holds in the \d+ states", shown) and re.search(
        r"rewards: .* 0.5 before the end", shown
    )
    assert "no module 'kitchn'" in shown and "no function 'build'" in shown
    assert all(f"| {arm} " in shown for arm in ("sample", "q_n5", "control_q_n5", "search"))
    assert (
        len([line for line in (tmp_path / "kitchen.py").read_text().splitlines() if line.strip()])
        <= 65
    )


def test_a_module_that_is_not_python_is_told_with_its_line(module):
    name, file = module
    file.write_text("x = 1\ndef make(settings:\n")
    with pytest.raises(QvlibError, match=rf"environment '{name}:make': {name}.py, line 2: .*mend"):
        make({"environment": f"{name}:make"})
