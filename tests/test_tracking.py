"""wandb gets a copy, or is left alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from qvlib.pipeline.params import make
from qvlib.report.tracking import log_run, run_name, wandb_mode

ROOT = Path(__file__).parents[1]


def test_the_mode_follows_the_key(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert wandb_mode(make({})) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_mode(make({})) == "online"
    assert wandb_mode(make({"wandb_mode": "disabled"})) == "disabled"


@pytest.mark.parametrize(
    "variable, mode",
    [
        ("offline", "offline"),
        ("dryrun", "offline"),
        ("disabled", "disabled"),
        ("ONLINE", "online"),
        ("run", "online"),
        ("", "online"),
    ],
)
def test_the_variable_goes_before_the_key(monkeypatch, variable, mode):
    """A node of a cluster without a way out has WANDB_MODE=offline beside the user's key."""
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("WANDB_MODE", variable)
    assert wandb_mode(make({})) == mode
    assert wandb_mode(make({"wandb_mode": "disabled"})) == "disabled"  # what is said outright
    monkeypatch.delenv("WANDB_API_KEY")
    assert wandb_mode(make({})) == (mode if variable else "offline")


def test_a_variable_that_wandb_refuses_costs_one_line(tmp_path):
    """In a process of its own, as a notebook is: wandb reads its variables once."""
    code = (
        "from qvlib.pipeline.params import make\n"
        "from qvlib.report.tracking import log_run\n"
        f"params = make({{'runs_dir': {str(tmp_path)!r}, 'wandb_mode': 'offline'}})\n"
        "log_run(params, '00_tour', scalars={'x': 1.0})\n"
        "print('went on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "WANDB_BASE_URL": "wandb.example.org"},
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    told, last = done.stdout.splitlines()
    assert told.startswith("wandb: not logged (WANDB_BASE_URL: Input should be a valid URL")
    assert last == "went on"


def test_names_depend_on_parameters_alone():
    assert run_name(make({}), "05_evaluate") == run_name(make({"batch_size": 3}), "05_evaluate")
    assert run_name(make({}), "05_evaluate") != run_name(make({"seed": 1}), "05_evaluate")


def test_disabled_does_not_even_import_wandb(tmp_path):
    code = (
        "import sys; from qvlib.pipeline.params import make\n"
        "from qvlib.report.tracking import log_run\n"
        "log_run(make({'wandb_mode': 'disabled'}), '00_tour', scalars={'x': 1.0})\n"
        "print('wandb' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "False\n"


def test_an_offline_run_is_written_in_silence(tmp_path, capfd):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots(figsize=(1, 1))
    figure.savefig(tmp_path / "figure.png")
    plt.close(figure)
    params = make({"runs_dir": str(tmp_path / "runs"), "wandb_mode": "offline", "name": "test"})
    log_run(
        params,
        "05_evaluate",
        scalars={"reward": 0.5},
        tables={"arms": pd.DataFrame({"arm": ["greedy"]}, index=[7])},
        figures={"gain": tmp_path / "figure.png"},
    )
    (folder,) = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    (log,) = folder.glob("run-*.wandb")
    end = time.monotonic() + 10  # wandb's own process writes it, a moment later
    while not all(text in log.read_bytes() for text in (b"test-05_evaluate-", b"reward", b"qvlib")):
        assert time.monotonic() < end, log.read_bytes()
        time.sleep(0.02)
    assert list(folder.glob("files/media/table/*.json")) and list(
        folder.glob("files/media/images/*.png")
    )
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


@pytest.mark.parametrize("error", [OSError("no route to host"), "wandb"])
def test_a_network_problem_costs_one_line(tmp_path, monkeypatch, capsys, error):
    import wandb

    raised = wandb.errors.CommError("no\nservice") if error == "wandb" else error

    def refuse(**kwargs):
        raise raised

    monkeypatch.setattr(wandb, "init", refuse)
    log_run(
        make({"runs_dir": str(tmp_path), "wandb_mode": "online"}),
        "05_evaluate",
        scalars={"reward": 0.5},
    )
    assert capsys.readouterr().out.count("\n") == 1


def test_other_errors_are_not_hidden(tmp_path, monkeypatch):
    import wandb

    def broken(**kwargs):
        raise TypeError("a programming error")

    monkeypatch.setattr(wandb, "init", broken)
    with pytest.raises(TypeError):
        log_run(make({"runs_dir": str(tmp_path), "wandb_mode": "offline"}), "05_evaluate")
