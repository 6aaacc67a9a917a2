"""What lies on disk is checked when it is read: nothing edited, damaged or exchanged passes."""

import errno
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest

from qvlib import pipeline
from qvlib.base import errors, files
from qvlib.base.errors import QvlibError
from qvlib.pipeline.params import make
from qvlib.pipeline.work import Made, Parcel
from qvlib.runs import checksums, parquet, provenance
from qvlib.runs import stage as runs
from qvlib.runs.stage import is_complete, open_stage, read_stage, stage_path


@pytest.fixture
def params(tmp_path):
    return make({"runs_dir": str(tmp_path / "runs")})


@pytest.fixture
def finished(params, tmp_path):
    """A finished stage with a table, lines and a model's folder; gives its folder."""
    model = tmp_path / "made"
    model.mkdir()
    (model / "weights").write_bytes(bytes(1000))
    with open_stage(params, "episodes/sample") as stage:
        for task, reward in (("b", 0.5), ("a", 1.0)):
            stage.append("episodes", {"arm": "sample", "task": task, "reward": reward})
        stage.to_parquet("episodes", ["arm", "task"])
        Made("part", {"model": Parcel(model)}).keep(stage)
        (stage.path / "training").mkdir()
        (stage.path / "training" / "checkpoint").touch()
        stage.finish(mean=0.75)
    return stage.path


def flip(path, at=500):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def reward_in_table(path):
    table = pd.read_parquet(path)
    table.loc[0, "reward"] = 0.9
    table.to_parquet(path, index=False)


def other_model(path):
    shutil.rmtree(path)
    path.mkdir()
    (path / "weights").write_bytes(b"another")


def fact(path):
    path.write_text(path.read_text().replace("0.75", "0.95"))


@pytest.mark.parametrize(
    "name, tamper, named",
    [
        ("episodes.parquet", reward_in_table, r"episodes\.parquet was edited"),
        ("episodes.parquet", lambda path: os.truncate(path, 99), r"episodes\.parquet was edited"),
        ("episodes.parquet", Path.unlink, r"episodes\.parquet is gone"),
        ("episodes.jsonl", lambda path: path.write_text("{}\n"), r"episodes\.jsonl was edited"),
        ("model/weights", flip, "model/weights was edited"),
        ("model", other_model, "model/weights was edited"),
        ("model", shutil.rmtree, "model/weights is gone"),
        ("manifest.json", fact, r"manifest\.json was edited"),
    ],
)
def test_what_was_changed_after_the_end_is_named_with_the_remedy(
    params, finished, name, tamper, named
):
    assert read_stage(params, "episodes/sample").facts == {"mean": 0.75}
    tamper(finished / name)
    for read in (
        lambda: read_stage(params, "episodes/sample"),
        lambda: open_stage(params, "episodes/sample").__enter__(),
    ):
        with pytest.raises(QvlibError, match=rf"{named}.*delete the folder .*episodes-sample-"):
            read()
    assert not is_complete(params, "episodes/sample")


def test_checkpoints_and_what_came_later_are_not_of_the_stage(params, finished):
    shutil.rmtree(finished / "training")
    (finished / "notes.txt").write_text("mine")
    assert is_complete(params, "episodes/sample")
    assert sorted(read_stage(params, "episodes/sample").manifest["files"]) == [
        "episodes.jsonl",
        "episodes.parquet",
        "model/weights",
    ]


def test_files_are_read_once_while_they_stay_the_same(params, finished, monkeypatch):
    read_stage(params, "episodes/sample")
    with monkeypatch.context() as patch:
        patch.setattr(checksums, "_checksum", lambda path: pytest.fail(f"{path} was read again"))
        read_stage(params, "episodes/sample")
    before = (finished / "model/weights").stat()
    flip(finished / "model/weights")
    os.utime(finished / "model/weights", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_complete(params, "episodes/sample")  # the same size and time do not deceive


@pytest.mark.parametrize(
    "line, wrong",
    [
        ('{"arm": "sample", "task": "c", "reward": 7}', r"has reward 7, which is none in \[0, 1\]"),
        ('{"arm": "sample", "task": "c", "reward": NaN}', "is not a JSON object of finite numbers"),
        ('{"arm": "sample", "task": "c", "reward": 1e999}', "has reward inf"),
        ('{"arm": "sample", "task": "c", "reward": "1"}', "has reward '1'"),
        ('{"arm": "sample", "task": "c", "reward": true}', "has reward True"),
        ("{}", "has no 'task'"),
        ('{"task": "c"}', "has no 'arm'"),
        ("[" * 100_000, "is not a JSON object"),
    ],
)
def test_a_line_that_no_run_wrote_is_named(params, line, wrong):
    """While a stage runs there is no checksum yet: a line is looked at when it is read."""
    with open_stage(params, "episodes/sample") as stage:
        stage.append("episodes", {"arm": "sample", "task": "a", "reward": 0.5})
        path = stage.path / "episodes.jsonl"
        path.write_text(path.read_text() + line + "\n")
        for key in ("arm", ("arm", "task")):
            with pytest.raises(QvlibError, match=rf"episodes\.jsonl: line 2 {wrong}.*delete that"):
                stage.done("episodes", key)


def test_a_number_that_is_not_finite_is_not_written(params):
    with open_stage(params, "trees") as stage:
        stage.append("trees", {"task": "a"})
        for value in (float("nan"), float("inf")):
            with pytest.raises(QvlibError, match=r"trees\.jsonl: the record of task 'b' holds a n"):
                stage.append("trees", {"task": "b", "nodes": [{"value": value}]})
        assert stage.done("trees") == {"a"}


@pytest.mark.parametrize(
    "key, value",
    [
        ("status", "done"),
        ("facts", []),
        ("seconds", "5"),
        ("seconds", None),
        ("sessions", "1"),
        ("decided_by", {"trees": 1}),
        ("parameters", None),
        ("session_started", "now"),
        ("machine", {}),
        ("peak_memory_gib", {"process": "much"}),
        ("files", ["a"]),
        ("earlier", {}),
    ],
)
def test_wrong_types_in_a_manifest_are_named(params, key, value):
    with open_stage(params, "trees"):
        pass
    manifest = stage_path(params, "trees") / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), key: value}))
    with (
        pytest.raises(QvlibError, match=rf"manifest\.json is not the .*'{key}' is.*delete the fol"),
        open_stage(params, "trees"),
    ):
        pass


def test_a_table_that_is_no_whole_parquet_file_is_named(tmp_path):
    path = tmp_path / "pairs.parquet"
    with pytest.raises(QvlibError, match=r"pairs\.parquet is gone"):
        parquet.read(path)
    parquet.write(path, lambda: [{"task": "a"}])
    os.truncate(path, path.stat().st_size - 3)
    with pytest.raises(QvlibError, match=r"pairs\.parquet is no whole Parquet file"):
        parquet.read(path)


def test_finished_work_is_read_where_nothing_can_be_written(params, finished, monkeypatch):
    """As on a disk that is mounted read-only."""
    real = os.open

    def read_only(path, flags, *more, **others):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", path)
        return real(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", read_only)
    with open_stage(params, "episodes/sample") as stage:
        assert stage.complete and stage.table("episodes")["reward"].tolist() == [1.0, 0.5]
        with pytest.raises(RuntimeError, match="not open for writing"):
            stage.append("episodes", {"task": "c"})
    with (
        pytest.raises(QvlibError, match=r"cannot be written: Read-only.*set runs_dir"),
        open_stage(params, "trees"),
    ):
        pass


def test_links_in_a_shared_folder_are_not_followed(params, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = stage_path(params, "trees")
    folder.mkdir(parents=True)
    (folder / ".lock").symlink_to(victim)
    with (
        pytest.raises(QvlibError, match=r"\.lock cannot be written: it is a symbolic link"),
        open_stage(params, "trees"),
    ):
        pass
    (folder / ".lock").unlink()
    with open_stage(params, "trees") as stage:
        (folder / "trees.jsonl").symlink_to(victim)
        with pytest.raises(QvlibError, match=r"trees\.jsonl cannot grow: it is a symbolic link"):
            stage.append("trees", {"task": "a"})
        with pytest.raises(QvlibError, match=r"trees\.jsonl cannot be read: it is a symbolic link"):
            stage.done("trees")
        (folder / "trees.jsonl").unlink()
        for name in (f".table.parquet.{os.getpid()}.tmp", ".model.tmp"):
            (folder / name).symlink_to(tmp_path)
        made = tmp_path / "made"
        made.mkdir()
        (made / "weights").touch()
        (folder / "model").symlink_to(tmp_path)
        sent = Parcel(None, {"weights": b"1"})
        Made("part", {"model": sent}, {"table": [{"task": "a"}]}).keep(stage)
        assert (folder / "model/weights").read_bytes() == b"1"
        assert not (folder / "model").is_symlink()
    assert victim.read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == [
        "made",
        "runs",
        "victim",
    ]


def test_temporary_names_cannot_be_guessed_and_a_kill_leaves_none_for_good(params, monkeypatch):
    names = {files.hidden(Path("a.json")).name for _ in range(100)}
    assert len(names) == 100 and all(len(name) > 20 for name in names)
    target = Path(params.run.runs_dir) / "taken.json"
    target.parent.mkdir()
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "guessed")
    (target.parent / ".taken.json.guessed.tmp").symlink_to(target.parent / "elsewhere")
    with pytest.raises(QvlibError, match=r"taken\.json cannot be written: File exists"):
        files.write_atomic(target, "x")
    assert not (target.parent / "elsewhere").exists()
    folder = stage_path(params, "trees")
    folder.mkdir(parents=True)
    (folder / ".trees.parquet.0123.tmp").touch()
    (folder / ".model.0123.tmp").mkdir()
    (folder / ".model.0123.tmp" / "weights").touch()
    with open_stage(params, "trees"):
        assert sorted(p.name for p in folder.iterdir()) == [".lock", "manifest.json"]


@pytest.mark.parametrize(
    "error, told",
    [
        (MemoryError(), "the memory is used up; lower batch_size or processes"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "the memory is"),
        (RuntimeError("in a worker process:\nTraceback\nMemoryError\n"), "the memory is used up"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is used up"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; make room"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device")]), "the disk is full"),
    ],
)
def test_too_little_memory_or_disk_is_one_line(params, error, told):
    with (
        pytest.raises(QvlibError, match=rf"runs/trees-\w+: {told}.*everything finished is kept"),
        open_stage(params, "trees") as stage,
    ):
        stage.append("trees", {"task": "a"})
        raise error
    with open_stage(params, "trees") as stage:
        assert stage.done("trees") == {"a"}


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(2, "gone"), KeyError("x")])
def test_other_errors_stay_what_they_are(params, error):
    assert errors.of_the_machine(error) is None
    with pytest.raises(type(error)), open_stage(params, "trees"):
        raise error


def test_other_code_than_todays_is_told_once_with_both_commits(params, monkeypatch, capsys):
    monkeypatch.setattr(provenance, "_told", set())
    old, new = ({"commit": letter * 40, "dirty": letter == "b"} for letter in "ab")
    for stage in ("data", "trees"):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "code_hash", lambda: "old")
            patch.setattr(provenance, "git_state", lambda: old)
            with open_stage(params, stage) as opened:
                opened.finish()
    with open_stage(params, "pairs") as opened:
        opened.finish()
    monkeypatch.setattr(provenance, "git_state", lambda: new)
    read_stage(params, "pairs")
    assert capsys.readouterr().err == ""
    for stage in ("data", "trees", "data"):
        read_stage(params, stage)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("warning: ") and "data-" in told
    assert "made by commit aaaaaaaaa, and this is commit bbbbbbbbb with changes" in told


def test_the_code_of_ones_own_arm_and_estimator_decides(tmp_path, monkeypatch):
    """An edited module is another arm or estimator; a digest without any is as it was."""
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for number, cost in enumerate("12"):
        name = f"own_module_{number}"
        (tmp_path / f"{name}.py").write_text(OWN.replace("COST", cost))
        given = {"extra_arms": (f"{name}:ARM",), "estimator": f"{name}:ESTIMATOR"}
        params = make(given)
        fields = params.stage_fields("episodes/own"), params.stage_fields("q_model")
        digests.append([value for field in fields for key, value in field.items() if "sha" in key])
        assert params.digest("pairs") == make({}).digest("pairs")
        assert params.digest("q_model") != make({}).digest("q_model")
        assert params.digest("episodes/greedy") == make({}).digest("episodes/greedy")
    assert [len(each) for each in digests] == [2, 2] and not set(digests[0]) & set(digests[1])


OWN = """
from qvlib.agents.arm import NO_Q, arm
from qvlib.base.settings import Settings
from qvlib.estimators import Estimator
WORTH = COST
ARM = arm("own", NO_Q, "something", lambda cast: None)
ESTIMATOR = Estimator("own", Settings, lambda *_: None, lambda *_: None)
"""


NODES = 30


def tree(number):
    nodes = [
        {"node": f"{number}.{i}", "parent": None, "observation": f"{i} " * 50, "visits": i}
        for i in range(NODES)
    ]
    return {"task": f"task-{number:05d}", "nodes": nodes}


def peak_of(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_stays_flat_however_many_trees_there_are(params, monkeypatch):
    """To find what is done, to write the table and to read trees by task."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(parquet, "ROWS", 10 * NODES)
    few, many = 20, 120
    peaks = {}
    with open_stage(params, "trees") as stage:
        stage.append("trees", tree(0))
        stage.to_parquet("trees", ["task", "node"], explode="nodes")  # imports what it needs
        for count in (few, many):
            for number in range(len(stage.done("trees")), count):
                stage.append("trees", tree(number))
            peaks[count] = [
                peak_of(lambda: stage.done("trees")),
                peak_of(lambda: stage.to_parquet("trees", ["task", "node"], explode="nodes")),
                peak_of(lambda: [each["task"] for each in stage.each("trees", ["task"])]),
                peak_of(lambda: files.mend_tail(stage.path / "trees.jsonl")),
            ]
        whole = peak_of(lambda: stage.records("trees"))
    assert whole > 5 * max(peaks[many][0], peaks[many][2])  # what it took before
    for less, more in zip(peaks[few], peaks[many], strict=True):
        assert more < 1.5 * less + 50_000


def test_a_table_in_parts_is_the_table_at_once(params, monkeypatch, tmp_path):
    records = [
        {
            "task": f"t{number}",
            "arm": "b" if number % 2 else "a",
            "reward": number / 10,
            "log_prob": None if number < 4 else number + 0.5,
            "steps": number if number % 3 else None,
            "note": None if number < 6 else "x",
            "trace": [{"action": "a", "q": None if number < 5 else [0.5, number]}],
            **({"late": [number]} if number == 8 else {}),
        }
        for number in (7, 3, 8, 1, 0, 9, 2, 5, 4, 6)
    ]
    keys = ["arm", "task"]
    ordered = sorted(records, key=lambda r: tuple(r[k] for k in keys))
    monkeypatch.setattr(parquet, "ROWS", 2)
    parts = parquet.read(parquet.write(tmp_path / "parts.parquet", lambda: ordered, keys))
    monkeypatch.setattr(parquet, "ROWS", 1000)
    at_once = parquet.read(parquet.write(tmp_path / "whole.parquet", lambda: ordered, keys))
    assert [list(parts["task"]), list(at_once["task"])] == [[r["task"] for r in ordered]] * 2
    pd.DataFrame(records).sort_values(keys, ignore_index=True).to_parquet(tmp_path / "p.parquet")
    known = pd.read_parquet(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(at_once, known)
    pd.testing.assert_frame_equal(parts[known.columns], known)


def test_trees_of_all_rounds_come_by_task(params):
    second = params.replace(rounds=2)
    for each, tasks in ((params, "dbf"), (second, "cae")):
        with open_stage(each, "trees") as stage:
            for task in tasks:
                stage.append("trees", {"task": task, "nodes": []})
            stage.finish()
    assert [tree["task"] for tree in pipeline.load_trees(second)] == list("abcdef")
    assert [tree["task"] for tree in pipeline.load_trees(params)] == list("bdf")
