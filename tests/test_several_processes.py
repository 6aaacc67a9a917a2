"""Training by two processes of a launcher, over gloo on the CPU: the curve of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from two_processes import CASES, train

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.cli import main
from qvlib.core.preferences import Pair
from qvlib.models.small import Demonstration, make_model, train_tokenizer
from qvlib.pipeline.params import make
from qvlib.runs.stage import open_stage, read_stage, stage_path

ROOT = Path(__file__).parents[1]
LONGEST = 600
"""Seconds after which processes that wait for each other are ended; they take half a minute."""
CLOSE = 1e-5
"""Nats: a process's share of a batch is padded less than the whole, and sums in another order."""


def launch(*command: str) -> subprocess.CompletedProcess:
    """``accelerate launch`` a script or module in two processes, for which it needs no GPU.

    They are ended together.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes",
            "2",
            "--main_process_port",
            "0",
            *command,
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
    )
    try:
        out, err = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher ends its processes
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def close(one, other) -> None:
    """Two curves are the same but for rounding."""
    assert len(one) == len(other) > 0
    for row, wanted in zip(one, other, strict=True):
        assert {
            **row,
            **{k: pytest.approx(wanted[k], abs=CLOSE) for k in row if isinstance(row[k], float)},
        } == wanted


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    done = launch("tests/two_processes.py", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (
        json.loads((tmp_path / "two" / f"rank{number}.json").read_text()) for number in (0, 1)
    )
    assert first == second
    assert (
        first["curves"]["resumed"] == first["curves"]["full"]
        and first["weights"]["resumed"] == first["weights"]["full"]
    )
    for case in CASES:
        policy, curve = train(tmp_path / "one", case)
        found = first["curves"][case]
        assert [(r["split"], r["pairs"]) for r in found] == [
            (r["split"], r["pairs"]) for r in curve
        ]
        weights = [float(p.detach().abs().sum()) for p in policy.model.parameters()]
        if case == "uneven":  # the last batch, of 5, is filled up: the update after it is another
            close(found[:-1], curve[:-1])
            assert found[-2]["pairs"] == 5 and found[-1]["split"] == "held-out"
        else:
            close(found, curve)
            assert first["weights"][case] == pytest.approx(weights, rel=1e-4)
        written = {
            f.relative_to(tmp_path / "one")
            for f in (tmp_path / "one" / case).rglob("*")
            if f.is_file()
        }
        more = {
            f.relative_to(tmp_path / "two")
            for f in (tmp_path / "two" / case).rglob("*")
            if f.is_file()
        } - written
        assert {f.name for f in more} <= {"rng_state_0.pth", "rng_state_1.pth"}


def prepared(folder: Path, **changes):
    """Parameters of a run that has come to its pairs, with a small random model as the agent."""
    params = make(
        {
            "catalogue_products": 200,
            "catalogue_seed": 3,
            "demonstrations": 5,
            "other_demonstrations": 0,
            "train_tasks": 12,
            "test_tasks": 5,
            "dev_share": 0.2,
            "wandb_mode": "disabled",
            "agent": str(folder.parent / "given"),
            "trainer": "trl",
            "dpo_lr": 1e-3,
            "control_shuffles": 1,
            "heldout_share": 0.3,
            "runs_dir": str(folder),
            **changes,
        }
    )
    context = pipeline.context_of(params)
    world = context.environment
    if not (folder.parent / "given").exists():
        tokenizer = train_tokenizer(
            [Demonstration(world.reset(task), "search[tea]") for task in world.tasks("train")[:40]],
            500,
        )
        make_model(tokenizer, 16, 1, 2, 0).save_pretrained(folder.parent / "given")
        tokenizer.save_pretrained(folder.parent / "given")
    pipeline.train_agents(params)
    with open_stage(params, "pairs") as stage:
        pairs = [
            Pair(
                task.id,
                "",
                (),
                f"search[{task.instruction[-9:]}]",
                "search[red tea]",
                1.0,
                0.0,
                2,
                2,
            )
            for task in context.uses.search
            for _ in range(2)
        ]
        pipeline.pairs.write_table(stage, "pairs", [pair.record() for pair in pairs])
        stage.finish(pairs=len(pairs), tasks=12, trees=12)
    return params


def written(params, folder: Path) -> list[str]:
    """Command line of ``qvlib train`` for parameters."""
    file = folder / "train.yml"
    file.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in params.unusual().items()))
    return ["train", str(file)]


@pytest.mark.slow
def test_the_command_trains_in_two_processes_as_in_one(tmp_path, capsys):
    one, two = prepared(tmp_path / "one"), prepared(tmp_path / "two")
    done = launch("-m", "qvlib.cli", *written(two, tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert main(written(one, tmp_path)) == 0
    said = capsys.readouterr().out
    assert (
        done.stdout.replace(two.run.runs_dir, one.run.runs_dir) == said
        and said.count("Q model: ") == 1
    )
    for stage, curves in (("q_model", ["curve"]), ("control", ["curve-0"])):
        alone, together = read_stage(one, stage), read_stage(two, stage)
        assert alone.facts == together.facts and together.manifest["sessions"] == 1
        for name in curves:
            close(together.table(name).to_dict("records"), alone.table(name).to_dict("records"))
    assert main(written(two, tmp_path)) == 0  # all is there
    assert (
        capsys.readouterr().out == done.stdout
        and read_stage(two, "q_model").manifest["sessions"] == 1
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer": "loop"}, "trainer: loop trains in one process alone"),
        ({"dpo_batch": 5}, "batches of 5 pairs cannot be shared evenly by 2"),
    ],
)
def test_what_cannot_be_shared_is_told(tmp_path, monkeypatch, change, message):
    params = prepared(tmp_path / "runs", **change)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(QvlibError, match=message):
        pipeline.train_q(params)
    assert not (stage_path(params, "q_model") / "model").exists()


def test_a_whole_run_is_not_for_a_launcher(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["run", "params/smoke.yml"]) == 2
    assert (
        "2 processes were launched (WORLD_SIZE), but only `qvlib train` is for several"
        in capsys.readouterr().err
    )
