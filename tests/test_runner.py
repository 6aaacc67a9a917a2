"""The runner, with small throw-away notebooks in a project of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from qvlib import runner
from qvlib.base.errors import QvlibError
from qvlib.base.terminal import Forward, format_duration
from qvlib.cli import main
from qvlib.pipeline.params import load
from qvlib.runs.stage import open_stage

ROOT = Path(__file__).parents[1]
PARAMETERS = "# Parameters\nname = 'quick'\nruns_dir = 'runs'\nresults_dir = 'results'\nseed = 0"
LOOK = """from pathlib import Path
from qvlib.pipeline.notebook import notebook_parameters
params = notebook_parameters(globals())
with open("ran.txt", "a") as file:
    file.write(f"{params.run.name} {params.run.seed} {Path.cwd()}\\n")"""
QVLIB_ERROR = (
    "from qvlib.base.errors import QvlibError\nraise QvlibError('no products.json; put it there')"
)
NOISE = """import sys, os
from tqdm.auto import tqdm
for task in tqdm(range(3), desc="tasks"):
    pass
print("old\\rnew")
print(sys.executable, os.environ["OMP_WAIT_POLICY"])"""
STAGE = """import time
from qvlib.pipeline.notebook import notebook_parameters
from qvlib.runs.stage import open_stage
with open_stage(notebook_parameters(globals()), "trees") as stage:
    stage.append("trees", {"task": len(stage.records("trees"))})
    time.sleep(60)"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder that is the current one; returns a function that writes a notebook."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "qvlib"\n')
    (tmp_path / "tiny.yml").write_text("name: tiny\nseed: 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def write(name, *cells):
        first = new_code_cell(PARAMETERS)
        first.metadata["tags"] = ["parameters"]
        notebook = new_notebook(cells=[first, *map(new_code_cell, cells)])
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")

    write.path = tmp_path
    return write


def ran(project):
    path = project.path / "ran.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_runs_skips_and_runs_again(project, capfd):
    project("00_look", LOOK)
    assert main(["run", "tiny.yml"]) == 0
    assert ran(project) == [f"tiny 3 {project.path}"]
    for path in ("notebooks/00_look.ipynb", "html/00_look.html", "manifest.json"):
        assert (project.path / "results/tiny" / path).exists()
    assert "[1/1] 00_look" in capfd.readouterr().out

    assert main(["run", "tiny.yml"]) == 0
    assert len(ran(project)) == 1 and "up to date" in capfd.readouterr().out
    assert main(["run", "tiny.yml", "--force"]) == 0
    assert len(ran(project)) == 2
    assert main(["run", "tiny.yml", "-p", "seed", "4", "-p", "name", "other"]) == 0
    assert ran(project)[-1].startswith("other 4 ")


def test_rendered_results_do_not_stand_for_a_run_that_never_was(project):
    """A clone brings results, but no runs: there the work is done."""
    project("01_agent", LOOK)
    for _ in range(2):
        assert main(["run", "tiny.yml"]) == 0
    assert len(ran(project)) == 2
    params = load("tiny.yml")
    for stage in ("data", "agent", "other_agent"):
        with open_stage(params, stage) as opened:
            opened.finish()
    assert main(["run", "tiny.yml"]) == 0
    assert len(ran(project)) == 2
    project("06_ablations", LOOK)  # needs no stage for what is not asked for: scoring rules, a grid
    played = [f"episodes/{arm.name}" for arm in params.arms()]
    for stage in ("trees", "pairs", "q_model", "control", *played, "scored"):
        with open_stage(params, stage) as opened:
            opened.finish()
    for _ in range(2):
        assert main(["run", "tiny.yml"]) == 0
    assert len(ran(project)) == 3


def test_every_chain_and_round_must_have_worked(monkeypatch):
    params = load(ROOT / "params" / "quick.yml", seeds=2, rounds=2, grid="grid.yml", rule_tasks=2)
    done = set()
    monkeypatch.setattr(runner, "is_complete", lambda made, stage: made.digest(stage) in done)
    first, second = params.each_seed()
    for chain in (first, second):
        for made_with, stages in (
            (chain.round_before(), ("trees", "pairs", "q_model")),
            (chain, [stage for stage in chain.stages() if stage != "trial"]),
        ):
            for stage in stages:
                assert not runner.has_worked(params, "07_report"), (chain.run.seed, stage)
                done.add(made_with.digest(stage))
    assert not runner.has_worked(params, "06_ablations")
    done.add(first.digest("trial"))  # a grid is tried with the first chain
    assert runner.has_worked(params, "06_ablations") and runner.has_worked(params, "07_report")
    assert runner.has_worked(params.replace(seeds=1), "07_report")
    assert not runner.has_worked(params.replace(seeds=3), "01_agent")
    assert not runner.has_worked(params.replace(rounds=3), "02_collect")


def test_an_edited_grid_is_noticed(project, monkeypatch, capsys):
    """By the notebooks that show it, and only by them."""
    executed = []

    def execute(notebook, parameters):
        executed.append(notebook.stem)
        return nbformat.read(notebook, as_version=4)

    monkeypatch.setattr(runner, "execute", execute)
    monkeypatch.setattr(runner, "has_worked", lambda *_: True)
    for name in ("05_evaluate", "06_ablations", "07_report"):
        project(name, "1")
    grid = project.path / "grid.yml"
    for text in ("beta: {beta: [0.3]}", "beta: {beta: [0.3, 0.03]}"):
        grid.write_text(text)
        for _ in range(2):
            assert main(["run", "tiny.yml", "-p", "grid", "grid.yml"]) == 0
    assert executed == ["05_evaluate", *["06_ablations", "07_report"] * 2]
    assert capsys.readouterr().out.count("up to date") == 3 + 1 + 3
    for mistake in ("beta: {betta: [0.3]}", None):  # told before any notebook runs
        grid.write_text(mistake) if mistake else grid.unlink()
        assert main(["run", "tiny.yml", "-p", "grid", "grid.yml", "--force"]) == 2
        assert main(["run", "tiny.yml", "-p", "grid", "grid.yml", "--only", "05"]) == 0
    errors = capsys.readouterr().err
    assert "did you mean 'beta'" in errors and "no such grid" in errors and len(executed) == 5


def test_a_study_is_played_by_the_runs_that_name_it_alone(project, monkeypatch, capsys):
    executed = []

    def execute(notebook, parameters):
        executed.append(notebook.stem)
        return nbformat.read(notebook, as_version=4)

    monkeypatch.setattr(runner, "execute", execute)
    for name in ("07_report", "09_published", "10_more"):
        project(name, "1")
    assert main(["run", "tiny.yml"]) == 0 and executed == ["07_report"]
    named = ["run", "tiny.yml", "-p", "studies", "[10_more]", "--force"]
    assert main(named) == 0 and executed[1:] == ["07_report", "10_more"]
    assert main([*named, "--only", "10"]) == 0 and executed[3:] == ["10_more"]
    for arguments, message in (
        ([*named, "--only", "09"], "'09' is a study that this run has not; see `studies`"),
        ([*named[:-2], "[11_none]"], "no notebook '11_none'"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert len(executed) == 4


@pytest.mark.parametrize(
    "parameter, value, message",
    [
        ("results_dir", "tiny.yml", "tiny.yml cannot hold a run: it is no folder, or lies in what"),
        ("results_dir", "tiny.yml/in", "tiny.yml/in cannot hold a run: it is no folder, or lies"),
        ("results_dir", "x" * 300, "cannot hold a run: File name too long; mend that"),
        ("results_dir", "gone", "gone cannot hold a run: it is no folder"),
        ("runs_dir", "tiny.yml", "give another runs_dir"),
        ("name", "taken", "results/taken cannot hold a run: it is no folder, or lies in what is"),
        ("results_dir", "shut", "shut cannot hold a run: it may not be written into; mend that"),
    ],
)
def test_folders_that_cannot_be_used_are_told_before_any_notebook_is_played(
    project, monkeypatch, capsys, parameter, value, message
):
    monkeypatch.setattr(runner, "execute", lambda *_: pytest.fail("a notebook was played"))
    project("07_report", "1")
    (project.path / "results").mkdir()
    (project.path / "results" / "taken").touch()
    (project.path / "shut").mkdir()
    (project.path / "gone").symlink_to("nowhere")
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, how: "shut" not in str(path) and may(path, how))
    assert main(["run", "tiny.yml", "-p", parameter, value]) == 2
    told = capsys.readouterr().err
    assert message in told and f"give another {parameter}" in told


def test_the_comparison_is_played_where_one_is_named_and_its_file_is_a_parameter(
    project, monkeypatch, capsys
):
    executed = []

    def execute(notebook, parameters):
        executed.append(notebook.stem)
        return nbformat.read(notebook, as_version=4)

    monkeypatch.setattr(runner, "execute", execute)
    monkeypatch.setattr(runner, "has_worked", lambda *_: True)
    for name in ("07_report", "08_estimators"):
        project(name, "1")
    assert main(["run", "tiny.yml"]) == 0 and executed == ["07_report"]
    assert main(["run", "tiny.yml", "--only", "08"]) == 2
    assert (
        "a study that this run has not; see `studies`, `compare` and `baselines`"
        in capsys.readouterr().err
    )
    file = project.path / "estimators.yml"
    named = ["run", "tiny.yml", "-p", "compare", "estimators.yml", "-p", "name", "more"]
    for text in ("step_dpo: [{beta: 0.3}]", "step_dpo: [{beta: 0.1}]"):
        file.write_text(text)
        for _ in range(2):
            assert main(named) == 0
    assert executed[1:] == ["07_report", "08_estimators", "08_estimators"]
    file.write_text("step_dpo: [{betta: 0.3}]")  # told before any notebook runs
    assert main([*named, "--force"]) == 2
    assert "did you mean 'beta'" in capsys.readouterr().err and len(executed) == 4


def test_a_comparison_must_have_worked(monkeypatch):
    params = load(ROOT / "params" / "smoke.yml", compare="params/grids/estimators-smoke.yml")
    made = []
    monkeypatch.setattr(runner, "is_complete", lambda *_: True)
    monkeypatch.setattr(runner.comparison, "is_made", lambda params: bool(made))
    assert runner.has_worked(params, "07_report")
    assert not runner.has_worked(params, "08_estimators")
    made.append(1)
    assert runner.has_worked(params, "08_estimators")
    monkeypatch.setattr(runner.comparison, "seconds", lambda params: 1000.0)
    assert runner._spent(params, "08_estimators") == 1000


def test_the_time_of_a_grid_is_notebook_06s(monkeypatch):
    params = load(ROOT / "params" / "smoke.yml")
    monkeypatch.setattr(runner, "seconds_spent", lambda *_: 5.0)
    monkeypatch.setattr(runner.grids, "seconds", lambda params: 1000.0)
    assert params.ablations.grid
    assert runner._spent(params, "06_ablations") == 1005
    assert runner._spent(params, "05_evaluate") == 5
    assert runner._spent(params.replace(grid=""), "06_ablations") == 5


def test_what_a_notebook_makes_for_a_later_one_is_timed_once(project, monkeypatch):
    made = []

    def execute(notebook, parameters):
        made.append("a stage of 01")
        return nbformat.read(notebook, as_version=4)

    monkeypatch.setattr(runner, "execute", execute)
    monkeypatch.setattr(
        runner, "_spent", lambda params, name: 1000.0 * ("01" in name and any(made))
    )
    for name in ("00_tour", "01_agent"):
        project(name, "1")
    for seconds in (0, 1000):  # the second time it is there from an earlier session
        assert main(["run", "tiny.yml", "--force"]) == 0
        manifest = json.loads((project.path / "results/tiny/manifest.json").read_bytes())
        told = manifest["notebooks"]
        assert told["00_tour"] < 60 and seconds <= told["01_agent"] < seconds + 60


def test_the_time_of_earlier_sessions_counts(project):
    """Else a run that was stopped and went on would seem quick."""
    project("02_collect", LOOK)
    with open_stage(load("tiny.yml"), "trees") as stage:
        stage.manifest["seconds"] = 1000.0
    assert main(["run", "tiny.yml"]) == 0
    manifest = json.loads((project.path / "results/tiny/manifest.json").read_text())
    assert 1000 < manifest["notebooks"]["02_collect"] == manifest["seconds"] < 1060


def test_what_makes_a_copy_outdated(project):
    project("00_look", "1")
    results, stamp = (
        project.path / "results/tiny",
        {"parameters": "p", "notebook": "n", "package": "q"},
    )
    notebook = nbformat.read(project.path / "notebooks/00_look.ipynb", as_version=4)
    assert runner.up_to_date(results, "00_look", stamp) is None
    runner.render(notebook, results, "00_look", stamp | {"seconds": 1.5, "files": {}})
    assert runner.up_to_date(results, "00_look", stamp) == 1.5
    for key in stamp:
        assert runner.up_to_date(results, "00_look", stamp | {key: "other"}) is None
    (results / "html/00_look.html").unlink()
    assert runner.up_to_date(results, "00_look", stamp) is None


def test_a_notebook_hash_ignores_outputs_only(project):
    project("00_look", "print(1)")
    path = project.path / "notebooks/00_look.ipynb"
    before = runner.notebook_hash(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]
    notebook.cells[1].execution_count = 1
    nbformat.write(notebook, path)
    assert runner.notebook_hash(path) == before
    notebook.cells[1].source = "print(2)"
    nbformat.write(notebook, path)
    assert runner.notebook_hash(path) != before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["-p", "seeed", "1"], "did you mean 'seed'"),
        (["-p", "seed", "one"], "'seed'"),
        (["--only", "09"], "no notebook '09'; there are 00_look"),
    ],
)
def test_a_mistake_stops_before_a_kernel_starts(project, monkeypatch, capsys, arguments, message):
    project("00_look", LOOK)
    monkeypatch.setattr(runner, "execute", lambda *_: pytest.fail("a kernel was started"))
    assert main(["run", "tiny.yml", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (project.path / "results").exists()


def test_an_error_for_the_user_is_one_line_and_nothing_half_written(project, capfd):
    project("00_look", LOOK)
    project("01_fail", QVLIB_ERROR)
    assert main(["run", "tiny.yml"]) == 2
    error = capfd.readouterr().err  # a kernel that ends may complain of its own sockets
    assert error.endswith("error: no products.json; put it there\n")
    assert error.count("error: ") == 1 and "qvlib/runner.py" not in error
    written = {p.name for p in (project.path / "results").rglob("*") if p.is_file()}
    assert written == {"00_look.ipynb", "00_look.html"}

    project("01_fail", "1")  # mended: goes on where it stopped
    assert main(["run", "tiny.yml"]) == 0
    assert len(ran(project)) == 1


def test_other_errors_show_notebook_cell_and_traceback(project, capfd):
    project("00_fail", "x = 1", "def f():\n    return x / 0\nf()")
    assert main(["run", "tiny.yml"]) == 1
    error = capfd.readouterr().err
    assert (
        "notebooks/00_fail.ipynb stopped in cell [" in error
        and "return x / 0" in error
        and "\x1b" not in error
    )
    assert not (project.path / "results").exists()


def test_a_killed_kernel_is_explained(project, capfd):
    project("00_die", "import os\nos.kill(os.getpid(), 9)")
    assert main(["run", "tiny.yml"]) == 1
    assert "its process died" in capfd.readouterr().err


def test_what_steers_a_terminal_is_shown_as_text(project, capfd):
    hostile = r"'\x1b]0;owned\x07\x1b[2J'"
    project("00_hostile", f"print({hostile})", f"raise ValueError({hostile})")
    assert main(["run", "tiny.yml"]) == 1
    captured = capfd.readouterr()
    for text in (captured.out, captured.err):
        assert r"\x1b]0;owned\x07\x1b[2J" in text and "\x1b" not in text and "\x07" not in text


def test_output_reaches_the_terminal_and_the_copy_is_clean(project, capfd, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    project("00_noise", NOISE)
    assert main(["run", "tiny.yml"]) == 0
    captured = capfd.readouterr()
    assert "tasks: 100%" in captured.err and "3/3" in captured.err
    assert f"{sys.executable} PASSIVE\n" in captured.out and "OMP_WAIT_POLICY" not in os.environ
    notebook = nbformat.read(project.path / "results/tiny/notebooks/00_noise.ipynb", as_version=4)
    text = "".join(output["text"] for cell in notebook.cells for output in cell.outputs)
    assert text.startswith("new\n") and "tasks" not in text
    assert "papermill" not in notebook.metadata and notebook.metadata["qvlib"]["complete"] is True
    assert "tasks: 100%" not in (project.path / "results/tiny/html/00_noise.html").read_text()


def test_a_kernel_that_does_not_start_is_tried_three_times(project, monkeypatch, capsys):
    import papermill

    tries = []

    def refuse(*_, **__):
        tries.append(1)
        raise RuntimeError("Kernel died before replying to kernel_info")

    project("00_look", LOOK)
    monkeypatch.setattr(papermill, "execute_notebook", refuse)
    monkeypatch.setattr(runner.time, "sleep", lambda _: None)
    assert main(["run", "tiny.yml"]) == 2
    assert len(tries) == 3 and "no notebook kernel starts" in capsys.readouterr().err


def test_ctrl_c_stops_the_kernel_and_frees_the_stage(project):
    project("00_stage", STAGE)
    command = [sys.executable, "-m", "qvlib.cli", "run", "tiny.yml"]
    process = (
        subprocess.Popen(  # a test run in the background ignores Ctrl-C, and so would its children
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    )
    try:
        end = time.monotonic() + 30
        while not list(project.path.glob("runs/trees-*/trees.jsonl")):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (
        error.strip()
        == "interrupted; everything finished is kept: the same command goes on from there"
    )
    (manifest,) = project.path.glob("runs/trees-*/manifest.json")
    assert json.loads(manifest.read_text())["status"] == "running"
    assert not (project.path / "results").exists()
    code = (
        "from qvlib.pipeline.params import load; from qvlib.runs.stage import open_stage\n"
        "with open_stage(load('tiny.yml'), 'trees') as stage: print(len(stage.records('trees')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"
    )


def test_without_notebooks_there_is_a_clear_error(project):
    with pytest.raises(QvlibError, match="holds no notebooks"):
        runner.run("tiny.yml")


class Screen:
    def __init__(self, terminal):
        self.text, self.terminal = "", terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return self.terminal


def test_a_log_gets_the_last_state_of_a_line_only():
    for terminal, expected in ((True, "\r 1%\r 50%\r100%\na\nb\n"), (False, "100%\na\nb\n")):
        screen = Screen(terminal)
        forward = Forward(screen)
        for piece in ("\r 1%", "\r 50%", "\r100%\na\n", "b"):
            forward.write(piece)
        forward.close()
        forward.close()
        assert screen.text == expected


def test_seconds_read_well():
    assert [format_duration(s) for s in (0.04, 8.25, 61, 3725)] == [
        "0.0 s",
        "8.2 s",
        "1 min 1 s",
        "62 min 5 s",
    ]
