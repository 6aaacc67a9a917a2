"""Stage folders: alone, resumable after anything, never mixing parameters."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from qvlib.base import files
from qvlib.base.errors import QvlibError
from qvlib.base.paths import project_root, resolve
from qvlib.pipeline.params import STAGES, make
from qvlib.runs import stage as runs
from qvlib.runs.provenance import peak_memory
from qvlib.runs.stage import MADE_BY, notebook_of, open_stage, read_stage, stage_path, write_atomic

ROOT = Path(__file__).parents[1]


@pytest.fixture
def params(tmp_path):
    return make({"runs_dir": str(tmp_path / "runs")})


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_stage_is_made_finished_and_read(params):
    with pytest.raises(
        QvlibError, match=r"trees are not collected yet: run notebooks/02_collect.ipynb"
    ):
        read_stage(params, "trees")
    with open_stage(params, "trees") as stage:
        assert not stage.complete and stage.records("trees") == []
        stage.append("trees", {"task": "b", "reward": 0.5})
        stage.append("trees", {"task": "a", "reward": 1.0})
        assert stage.done("trees") == {"a", "b"}
        assert stage.done("trees", key=("task", "reward")) == {("a", 1.0), ("b", 0.5)}
        with pytest.raises(QvlibError, match="02_collect"):
            read_stage(params, "trees")
        stage.finish(nodes=2)
    found = read_stage(params, "trees")
    assert found.complete and found.facts == {"nodes": 2}
    with pytest.raises(RuntimeError, match="not open for writing"):
        found.append("trees", {"task": "c"})
    with pytest.raises(RuntimeError):
        stage.append("trees", {"task": "c"})


def test_the_manifest_tells_where_a_result_came_from(params):
    with open_stage(params, "pairs") as stage:
        stage.manifest["data_hashes"] = {"products": "abc"}
        stage.finish()
    text = (stage_path(params, "pairs") / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["status"] == "complete" and manifest["finished"].endswith("+00:00")
    assert set(manifest["decided_by"]) == {"data", "agent", "trees", "pairs"}
    assert manifest["parameters"]["iterations"] == 30 and manifest["data_hashes"] == {
        "products": "abc"
    }
    assert manifest["packages"]["pandas"] == pd.__version__ and manifest["packages"]["python"]
    assert manifest["seeds"] == {"seed": 0, "catalogue_seed": 0}
    assert manifest["machine"]["cpus"] >= 1 and manifest["machine"]["device"] == "cpu"
    assert os.uname().nodename not in json.dumps(manifest["machine"])


def test_every_stage_names_its_notebook():
    assert set(MADE_BY) == {*STAGES, "episodes", "dev"}
    for stage in make({"rule_tasks": 1, "grid": "a.yml", "rft": True, "eto": True}).stages():
        assert re.fullmatch(r"0[1-6]_\w+", notebook_of(stage))
    assert notebook_of("episodes/q_n5") == notebook_of("episodes/search") == "05_evaluate"
    assert notebook_of("dev/q_n5") == "12_baselines"


def test_each_arm_has_a_folder_of_its_own(params):
    arms = ("episodes/sample", "episodes/q_n5")
    for arm in arms:
        with open_stage(params, arm) as stage:
            stage.append("episodes", {"task": arm})
            stage.finish()
    folders = [stage_path(params, arm) for arm in arms]
    assert [read_stage(params, arm).path for arm in arms] == folders
    assert [folder.name for folder in folders] == [
        f"{arm.replace('/', '-')}-{params.digest(arm)}" for arm in arms
    ]
    with pytest.raises(
        QvlibError,
        match=r"episodes are not played yet: run notebooks/05_evaluate.*episodes-greedy-",
    ):
        read_stage(params, "episodes/greedy")


def test_a_complete_stage_is_left_as_it_is(params):
    with open_stage(params, "trees") as stage:
        stage.finish()
    manifest = stage_path(params, "trees") / "manifest.json"
    before = manifest.read_bytes()
    with open_stage(params, "trees") as stage:
        assert stage.complete
    assert manifest.read_bytes() == before


def test_a_stage_that_another_process_finished_meanwhile_is_read(params, monkeypatch):
    locked = runs._locked

    @contextmanager
    def after_another(path):
        monkeypatch.setattr(runs, "_locked", locked)
        with open_stage(params, "trees") as stage:
            stage.append("trees", {"task": "a"})
            stage.finish(tasks=1)
        with locked(path):
            yield

    monkeypatch.setattr(runs, "_locked", after_another)
    with open_stage(params, "trees") as stage:
        assert stage.complete and not stage.writable and stage.facts == {"tasks": 1}


def test_a_second_process_is_told_who_works_here(params):
    code = """
        import sys, time
        from qvlib.pipeline.params import make
        from qvlib.runs.stage import open_stage
        with open_stage(make({"runs_dir": sys.argv[1]}), "trees"):
            print("open", flush=True)
            time.sleep(60)
    """
    other = python(code, params.run.runs_dir)
    try:
        assert other.stdout.readline() == "open\n"
        with (
            pytest.raises(QvlibError, match=rf"in use by process {other.pid}; wait for it"),
            open_stage(params, "trees"),
        ):
            pass
        with open_stage(params, "data"):  # other stages are free
            pass
    finally:
        other.kill()
        other.wait()
    with open_stage(params, "trees") as stage:  # the system released the lock
        assert not stage.complete


def test_killed_while_appending_then_resumed(params):
    code = """
        import sys
        from qvlib.pipeline.params import make
        from qvlib.runs.stage import open_stage
        with open_stage(make({"runs_dir": sys.argv[1]}), "trees") as stage:
            for task in range(10**6):
                stage.append("trees", {"task": task, "nodes": list(range(2000))})
    """
    lines = stage_path(params, "trees") / "trees.jsonl"
    process = python(code, params.run.runs_dir)
    wait_for(lambda: lines.exists() and lines.stat().st_size > 200_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open(lines, "ab") as file:  # the worst moment: half a line
        file.write(b'{"task": 99999, "nodes": [1, 2')
    with open_stage(params, "trees") as stage:
        done = stage.done("trees")
        assert done == set(range(len(done))) and len(done) >= 10
        stage.append("trees", {"task": len(done), "nodes": []})
        assert stage.done("trees") == set(range(len(done) + 1))
        assert stage.manifest["sessions"] == 2 and stage.manifest["seconds"] > 0


def test_ctrl_c_leaves_a_stage_resumable(params):
    with pytest.raises(KeyboardInterrupt), open_stage(params, "trees") as stage:
        stage.append("trees", {"task": "a"})
        raise KeyboardInterrupt
    manifest = json.loads((stage.path / "manifest.json").read_text())
    assert manifest["status"] == "running" and "session_started" not in manifest
    with open_stage(params, "trees") as stage:
        assert stage.done("trees") == {"a"}


def test_seconds_add_up_over_sessions(params):
    for _ in range(2):
        with open_stage(params, "trees") as stage:
            time.sleep(0.05)
    assert 0.1 <= stage.manifest["seconds"] < 5


def test_other_code_that_made_a_part_is_remembered(params, monkeypatch):
    from qvlib.runs import stage as runs

    made_by = {
        "git": {"commit": "a" * 40, "dirty": False},
        "packages": {"torch": "1"},
        "machine": {"device": "cpu"},
        "seeds": {},
    }
    for change in ({}, {}, {"git": {"commit": "b" * 40, "dirty": True}}):
        monkeypatch.setattr(runs, "provenance", lambda _, change=change: made_by | change)
        with open_stage(params, "trees") as stage:
            pass
    assert stage.manifest["git"]["commit"] == "b" * 40
    assert stage.manifest["earlier"] == [{"git": made_by["git"], "packages": {"torch": "1"}}]


def test_what_a_notebook_took_is_the_time_of_its_stages(params, monkeypatch):
    """One after the other they add up, side by side the longest counts."""
    stages = {
        "data": (0, 2),
        "agent": (2, 30),
        "other_agent": (30, 40),
        "trees": (40, 90),
        "q_model": (90, 120),
        "control": (91, 140),
    }
    for name, (start, end) in stages.items():
        clock = iter(
            [
                f"2026-01-01T00:{start // 60:02d}:{start % 60:02d}",
                f"2026-01-01T00:{end // 60:02d}:{end % 60:02d}",
            ]
        )
        with monkeypatch.context() as patch, open_stage(params, name) as stage:
            stage.manifest.update(seconds=float(end - start), started=next(clock))
            patch.setattr(runs, "now", lambda clock=clock: next(clock))
            stage.manifest.pop("session_started")
            stage.finish()
    took = {
        notebook: runs.seconds_spent(params, notebook)
        for notebook in ("01_agent", "02_collect", "04_train_q", "05_evaluate")
    }
    assert took == {"01_agent": 40.0, "02_collect": 50.0, "04_train_q": 49.0, "05_evaluate": 0.0}


def test_rounds_before_count_too(params, monkeypatch):
    second = params.replace(rounds=2)
    for made_with, at in ((params, 1), (second, 2)):
        with open_stage(made_with, "trees") as stage, monkeypatch.context() as patch:
            stage.manifest.update(seconds=5.0, started=f"2026-01-01T0{at}:00:00")
            patch.setattr(runs, "now", lambda at=at: f"2026-01-01T0{at}:00:05")
            stage.manifest.pop("session_started")
            stage.finish()
    assert runs.seconds_spent(second, "02_collect") == 10.0
    assert runs.seconds_spent(params, "02_collect") == 5.0


def test_what_a_killed_session_took_counts_to_its_last_write(params):
    with open_stage(params, "trees") as stage:
        stage.append("trees", {"task": "a"})
    file = stage.path / "manifest.json"
    manifest = json.loads(file.read_text()) | {"session_started": time.time() - 100, "seconds": 5.0}
    file.write_text(json.dumps(manifest))
    assert 105 <= runs.seconds_spent(params, "02_collect") < 110


def test_the_most_memory_that_a_stage_took_is_kept(params, monkeypatch):
    used = iter([3.0, 1.0])
    monkeypatch.setattr(runs, "peak_memory", lambda device: {"process": next(used)})
    for _ in range(2):
        with open_stage(params, "trees") as stage:
            pass
    assert stage.manifest["peak_memory_gib"] == {"process": 3.0}
    assert 0.01 < peak_memory("cpu")["process"] < 1000 and set(peak_memory("cpu")) == {"process"}


@pytest.mark.parametrize(
    "tail, kept", [(b'{"task": 2, "x', 1), (b"\x00\x00\x00", 1), (b'{"task": 2}', 2), (b"[1]", 1)]
)
def test_a_torn_tail_costs_only_itself(params, tail, kept):
    with open_stage(params, "trees") as stage:
        stage.append("trees", {"task": 1})
    lines = stage.path / "trees.jsonl"
    lines.write_bytes(lines.read_bytes() + tail)
    with open_stage(params, "trees") as stage:
        assert len(stage.records("trees")) == kept
        stage.append("trees", {"task": 3})
        assert stage.records("trees")[-1] == {"task": 3} and len(stage.records("trees")) == kept + 1


def test_a_broken_line_in_the_middle_is_named(params):
    with open_stage(params, "trees") as stage:
        stage.append("trees", {"task": 1})
        lines = stage.path / "trees.jsonl"
        lines.write_bytes(lines.read_bytes() + b'{"task": \n' + b'{"task": 3}\n')
        with pytest.raises(QvlibError, match=r"trees\.jsonl: line 2 "):
            stage.records("trees")


def test_other_parameters_in_the_folder_are_named(params):
    with open_stage(params, "trees"):
        pass
    manifest = stage_path(params, "trees") / "manifest.json"
    content = json.loads(manifest.read_text())
    content["decided_by"]["trees"]["iterations"] = 8
    manifest.write_text(json.dumps(content))
    for read in (
        lambda: read_stage(params, "trees"),
        lambda: open_stage(params, "trees").__enter__(),
    ):
        with pytest.raises(
            QvlibError, match=r"iterations = 8 where the parameters now say 30.*delete the folder"
        ):
            read()


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"{}", b"\xff\xfe"])
def test_an_unreadable_manifest_is_named(params, content):
    with open_stage(params, "trees"):
        pass
    (stage_path(params, "trees") / "manifest.json").write_bytes(content)
    with (
        pytest.raises(QvlibError, match=r"manifest\.json is .*delete the folder"),
        open_stage(params, "trees"),
    ):
        pass


def test_a_full_disk_keeps_what_is_finished(params):
    """A real limit on file size, in a process of its own: a part of the line is taken, no more."""
    code = """
        import resource, sys
        from qvlib.base.errors import QvlibError
        from qvlib.pipeline.params import make
        from qvlib.runs.stage import open_stage
        with open_stage(make({"runs_dir": sys.argv[1]}), "trees") as stage:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            try:
                for task in range(100):
                    stage.append("trees", {"task": task, "text": "x" * 1000})
            except QvlibError as error:
                print(task, error)
    """
    assert hasattr(resource, "RLIMIT_FSIZE")
    printed, _ = python(code, params.run.runs_dir).communicate(timeout=60)
    failed = int(printed.split()[0])
    assert (
        10 < failed < 25
        and "trees.jsonl cannot grow" in printed
        and "everything finished is kept" in printed
    )
    assert (stage_path(params, "trees") / "trees.jsonl").read_bytes().endswith(b"\n")
    with open_stage(params, "trees") as stage:
        assert stage.done("trees") == set(range(failed))


def test_a_full_disk_at_sync_removes_the_line(params, monkeypatch):
    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    with open_stage(params, "trees") as stage:
        stage.append("trees", {"task": 1})
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", refuse)
            with pytest.raises(QvlibError, match="No space left on device"):
                stage.append("trees", {"task": 2})
            with pytest.raises(QvlibError, match="cannot be written"):
                write_atomic(stage.path / "manifest.json", "half")
        assert stage.done("trees") == {1}
        stage.append("trees", {"task": 2})
        assert sorted(p.name for p in stage.path.iterdir()) == [
            ".lock",
            "manifest.json",
            "trees.jsonl",
        ]
        assert json.loads((stage.path / "manifest.json").read_text())["status"] == "running"


def test_the_table_does_not_depend_on_the_order_of_completion(params, tmp_path):
    tasks = [
        {
            "task": t,
            "reward": r,
            "trace": [1],
            "nodes": [{"node": n, "visits": n + 1} for n in range(2)],
        }
        for t, r in (("b", 0.5), ("a", 1.0))
    ]
    tables = []
    for number, order in enumerate((tasks, tasks[::-1])):
        own = make({"runs_dir": str(tmp_path / str(number))})
        with open_stage(own, "trees") as stage:
            for record in order:
                stage.append("trees", record)
            tables.append(
                stage.to_parquet("trees", sort=["task", "node"], explode="nodes").read_bytes()
            )
            stage.finish()
    assert tables[0] == tables[1]
    table = read_stage(own, "trees").table("trees")
    assert table.to_dict("list") == {
        "task": ["a", "a", "b", "b"],
        "reward": [1.0, 1.0, 0.5, 0.5],
        "node": [0, 1, 0, 1],
        "visits": [1, 2, 1, 2],
    }


def test_relative_folders_lie_in_the_project(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "qvlib"\n')
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_root() == tmp_path and resolve("runs") == tmp_path / "runs"
    assert stage_path(make({}), "data").parent == tmp_path / "runs"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with (
        pytest.raises(QvlibError, match="set runs_dir"),
        open_stage(make({"runs_dir": str(tmp_path / "runs")}), "data"),
    ):
        pass
    with pytest.raises(QvlibError, match=r"runs/x\.json cannot be written"):
        write_atomic(tmp_path / "runs" / "x.json", "{}")
