"""Processes that stream: what they yield arrives, and none of their ends is a wait for ever."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import cores, process_count, slices, stream

ROOT = Path(__file__).parents[1]


def numbers(first, count):
    for i in range(count):
        yield first + i, os.getpid()


def fails(kind):
    yield "before"
    if kind == "user":
        raise QvlibError("no such file; fetch it")
    if kind == "bug":
        raise ZeroDivisionError("deep inside")
    if kind == "killed":
        time.sleep(0.5)  # what was yielded has left the process by then
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def test_where_cores_cannot_be_bound_all_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores() == process_count(0, "cpu") == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_slices_deal_out_everything():
    assert slices(range(7), 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert slices([1], 4) == [[1]] and slices([], 2) == []
    assert (
        process_count(3, "cpu") == 3
        and process_count(0, "cuda") == 1
        and process_count(0, "cpu") >= 1
    )


def test_everything_arrives_in_the_order_of_each_process():
    found = list(stream(numbers, [(0, 400), (1000, 400)]))
    assert [n for n, _ in found if n < 1000] == list(range(400))
    assert [n for n, _ in found if n >= 1000] == list(range(1000, 1400))
    pids = {pid for _, pid in found}
    assert len(pids) == 2 and os.getpid() not in pids


def test_one_part_runs_here():
    assert {pid for _, pid in stream(numbers, [(0, 3)])} == {os.getpid()}
    assert list(stream(numbers, [])) == []


@pytest.mark.parametrize(
    "kind, error, message",
    [
        ("user", QvlibError, "^no such file; fetch it$"),
        ("bug", RuntimeError, "(?s)in a worker process.*fails.*deep inside"),
        ("killed", QvlibError, "worker process died"),
    ],
)
def test_a_failure_ends_the_others_and_is_told(kind, error, message):
    started = time.monotonic()
    with pytest.raises(error, match=message):
        list(stream(fails, [(kind,), ("waits",)]))
    assert time.monotonic() - started < 40


def test_workers_end_with_a_killed_parent(tmp_path):
    code = textwrap.dedent(f"""
        import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        from test_parallel import waits
        from qvlib.base.executors.processes import stream
        if __name__ == "__main__":
            for pid in stream(waits, [(0,), (1,)]):
                print(pid, flush=True)""")
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True
    )
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


def waits(_):
    yield os.getpid()
    time.sleep(60)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
