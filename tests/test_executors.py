"""Executors: all that workers yield arrives, once, and no end of theirs is a wait for ever."""

import itertools
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import workings
from clusters import another_node

from qvlib.base import executors
from qvlib.base.errors import QvlibError
from qvlib.base.executors import folders, make
from qvlib.base.executors import processes as module
from qvlib.base.executors import ray as ray_module
from qvlib.base.executors.parts import ATTEMPTS, Book
from qvlib.base.executors.processes import cores, process_count, slices
from qvlib.pipeline import work
from qvlib.pipeline.params import load
from qvlib.runs.provenance import peak_memory

ROOT = Path(__file__).parents[1]
COUNT = 40  # items of a part that is killed


@pytest.fixture(params=[*executors.NAMES, "forked"])
def executor(request, ray_cluster):
    """An executor of two workers of each kind; forked: from a server that has imported numpy."""
    options = {
        "ray": lambda: {"ray_address": ray_cluster().address},
        "forked": lambda: {"imports": ("numpy",)},
    }
    name = "processes" if request.param == "forked" else request.param
    with make(name, workers=2, **options.get(request.param, dict)()) as made:
        yield made


def test_where_cores_cannot_be_bound_all_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores() == process_count(0, "cpu") == make("processes").workers == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_slices_deal_out_everything():
    assert slices(range(7), 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert slices([1], 4) == [[1]] and slices([], 2) == []
    assert process_count(3, "cpu") == 3
    assert process_count(0, "cuda") == make("processes", device="cuda").workers == 1
    assert process_count(0, "cpu") >= 1


def test_an_unknown_executor_is_told():
    with pytest.raises(QvlibError, match=r"^executor: 'dask' is none; set processes or ray$"):
        make("dask")


def test_everything_arrives_once_in_the_order_of_each_part(executor):
    arrived = list(executor.stream(workings.numbers, [(part, 300) for part in range(3)]))
    for part in range(3):
        assert [i for p, i, _ in arrived if p == part] == list(range(300))
    pids = {pid for *_, pid in arrived}
    assert len(arrived) == 900 and len(pids) <= 2 and os.getpid() not in pids
    assert list(executor.stream(workings.numbers, [])) == []


def test_workers_take_part_after_part(executor, tmp_path):
    parts = [(part, str(tmp_path), 2) for part in range(7)]
    arrived = list(executor.stream(workings.meeting, parts))
    assert sorted(part for part, *_ in arrived) == list(range(7))
    assert len({pid for _, pid, *_ in arrived}) == 2  # no more were ever there, and both worked
    assert max(done for _, _, done, *_ in arrived) >= 4  # in one process, after one another
    assert at_once([(start, end) for *_, start, end in arrived]) == 2


def at_once(spans):
    """The most spans of time that overlap."""
    ends = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    return max(itertools.accumulate(change for _, change in ends))


def test_one_worker_of_processes_is_this_process():
    for workers, parts in ((2, 1), (1, 3)):
        with make("processes", workers=workers) as executor:
            arrived = list(executor.stream(workings.numbers, [(p, 3) for p in range(parts)]))
        assert {pid for *_, pid in arrived} == {os.getpid()} and len(arrived) == 3 * parts


@pytest.mark.parametrize(
    "kind, error, message",
    [
        ("user", QvlibError, "^no such file; fetch it$"),
        ("bug", RuntimeError, "(?s)in a worker process.*fails.*deep inside"),
        ("exit", RuntimeError, "(?s)in a worker process.*SystemExit: no more"),
        ("strange", RuntimeError, "(?s)in a worker process.*pickle"),
    ],
)
def test_a_failure_ends_the_others_and_is_told(executor, kind, error, message):
    started = time.monotonic()
    with pytest.raises(error, match=message):
        list(executor.stream(workings.fails, [(kind,), ("waits",)]))
    assert time.monotonic() - started < 300  # the other would go on for ten minutes


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_work_of_a_killed_worker_is_done_again(executor, tmp_path, seed, backwards):
    delay = random.Random(f"{seed} {backwards}").uniform(0, COUNT * 0.01)
    parts = [(part, COUNT, str(tmp_path), delay, backwards) for part in range(3)]
    key = (lambda item: item[1]) if backwards else None
    arrived = []
    for item in executor.stream(workings.killed, parts, key):
        arrived.append(item)
        assert len(multiprocessing.active_children()) <= 2
    assert sorted(item[:2] for item in arrived) == [(p, i) for p in range(3) for i in range(COUNT)]
    lives = {}
    for *_, pid, moment in arrived:
        lives.setdefault(pid, []).append(moment)
    assert at_once([(min(life), max(life)) for life in lives.values()]) <= 2


def test_a_worker_may_be_killed_in_the_middle_of_a_large_item(executor, tmp_path):
    size, arrived = 50 << 20, []
    for part, item in executor.stream(workings.large, [(0, size, str(tmp_path)), (1, 9, "")]):
        arrived.append((part, len(item)))
        if (part, item) == (0, b"small"):
            time.sleep(1.5)  # nothing is read meanwhile, and no pipe holds so much
    assert sorted(arrived) == [(0, 5), (0, size), (1, 5), (1, 9)]


def test_work_that_kills_every_worker_is_given_up(executor, tmp_path):
    arrived = []
    with pytest.raises(QvlibError, match=f"worker process died {ATTEMPTS} times.*processes"):
        for item in executor.stream(workings.dies, [(0, str(tmp_path)), (1, str(tmp_path))]):
            arrived.append(item)
    tried = [path.name[0] for path in tmp_path.iterdir()]
    assert len(set(arrived)) == len(arrived) and max(map(tried.count, "01")) == ATTEMPTS


def test_a_worker_that_is_interrupted_alone_loses_nothing(executor):
    arrived, interrupted = [], False
    for part, i, pid in executor.stream(workings.slow, [(part, 30) for part in range(3)]):
        arrived.append((part, i))
        if part == 1 and i == 3 and not interrupted:
            interrupted = True
            os.kill(pid, signal.SIGINT)
    assert sorted(arrived) == [(p, i) for p in range(3) for i in range(30)] and interrupted


@pytest.mark.parametrize("by", ["generator", "executor"])
def test_a_caller_that_stops_early_leaves_no_worker(executor, by):
    running = executor.stream(workings.waits, [(0,), (1,)])
    pids = [next(running), next(running)]
    running.close() if by == "generator" else executor.close()
    all_end(pids)
    assert list(executor.stream(workings.numbers, [(0, 1), (1, 1)]))  # it can be used again


def test_a_process_that_is_stopped_holds_up_no_other(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    running = make("processes", workers=2).stream(workings.stops, [(part, 20) for part in range(4)])
    arrived = list(itertools.islice(running, 1 + 3 * 20))
    assert sorted(item[:2] for item in arrived if item[0]) == [
        (p, i) for p in (1, 2, 3) for i in range(20)
    ]
    running.close()
    all_end([pid for *_, pid in arrived])


def test_workers_wait_for_a_slow_caller(executor, tmp_path):
    running = executor.stream(workings.eager, [(p, str(tmp_path / str(p))) for p in range(2)])
    for _ in range(3):
        next(running)
    time.sleep(2)
    assert max(int(path.read_text()) for path in tmp_path.iterdir()) <= 8
    running.close()


def test_workers_are_where_the_driver_is(executor, monkeypatch):
    found = set(executor.stream(workings.here, [(0,), (1,), (2,)]))
    assert {folder for folder, *_ in found} == {Path.cwd()}
    assert {bars for *_, bars in found} == {"1"}
    if isinstance(executor, ray_module.Ray):
        assert {threads for _, threads, _ in found} == {"1"}


DRIVER = """
    import sys; sys.path[:0] = [{root!r}, {tests!r}]
    import workings
    from qvlib.base.executors import make
    if __name__ == "__main__":
        with make({name!r}, workers=2) as executor:
            for pid in executor.stream(workings.waits, [(0,), (1,)]):
                print(pid, flush=True)"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("name", executors.NAMES)
def test_workers_end_with_their_driver(tmp_path, ray_cluster, name, by):
    """Ray is one that the driver started. Ctrl-C reaches all its group, a kill the driver alone."""
    code = textwrap.dedent(DRIVER.format(root=str(ROOT), tests=str(ROOT / "tests"), name=name))
    (tmp_path / "driver.py").write_text(code)
    driver = subprocess.Popen(
        [sys.executable, tmp_path / "driver.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [int(driver.stdout.readline()) for _ in range(2)]
    driver.kill() if by == signal.SIGKILL else os.killpg(driver.pid, by)
    _, errors = driver.communicate(timeout=30)
    assert driver.returncode == -by and (by == signal.SIGKILL or "KeyboardInterrupt" in errors)
    all_end(pids)  # Ray's own processes take a minute


def all_end(pids):
    deadline = time.monotonic() + 60
    while living := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"outlived their driver: {living}"
        time.sleep(0.1)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_driver_without_a_file_has_workers():
    code = DRIVER.replace("waits, [(0,), (1,)]", "numbers, [(0, 1), (1, 1)]")
    code = textwrap.dedent(code.format(root=str(ROOT), tests=str(ROOT / "tests"), name="processes"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 2


def test_executors_are_light():
    code = (
        "import sys, qvlib.base.executors.ray, qvlib.base.executors.processes; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "multiprocessing" in loaded
    assert not {"ray", "torch", "pandas", "numpy", "transformers"} & set(loaded)


def test_forked_workers_have_todays_environment_and_what_was_imported(monkeypatch):
    for value in ("one", "two"):  # the second time the server is older than the variable
        monkeypatch.setenv("QVLIB_OF_TODAY", value)
        with make("processes", workers=2, imports=("numpy",)) as forked:
            parts = [(("QVLIB_OF_TODAY", "numpy"),)] * 2
            assert list(forked.stream(workings.surroundings, parts)) == [(value, True)] * 2
    with make("processes", workers=2) as spawned:
        parts = [(("QVLIB_OF_TODAY", "colorsys"),)] * 2
        assert list(spawned.stream(workings.surroundings, parts)) == [("two", False)] * 2


def test_the_memory_of_forked_workers_is_known(monkeypatch):
    monkeypatch.setattr(module, "_peak", 0)
    with make("processes", workers=2, imports=("numpy",)) as forked:
        list(forked.stream(workings.takes, [(200 << 20,), (1,)]))
    unit = 1 if sys.platform == "darwin" else 2**10
    assert module.largest_worker() * unit > 200 << 20
    assert peak_memory("cpu")["process"] > 0.19


def test_without_a_fork_server_workers_are_spawned(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with make("processes", workers=2, imports=("numpy",)) as spawned:
        found = list(spawned.stream(workings.numbers, [(0, 2), (1, 2)]))
    assert sorted(item[:2] for item in found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert make("processes", workers=2, device="cuda", imports=("numpy",))._imports == ()


def test_a_book_gives_each_item_once():
    book = Book(2, None)
    assert book.take() == 0 and [book.fresh(0, x) for x in "ab"] == [True, True]
    book.died(0)
    assert book.take() == 0 and [book.fresh(0, x) for x in "abc"] == [False, False, True]
    assert book.fresh(book.take(), "a")  # another part's
    book.died(0)
    assert book.take() == 0 and [book.fresh(0, x) for x in "abcd"] == [False] * 3 + [True]
    book.finished(0), book.finished(1)
    assert book.open == 0
    keyed = Book(1, len)
    keyed.take()
    assert keyed.fresh(0, "aa") and keyed.fresh(
        0, "bb"
    )  # the same name twice, the work's own doing
    keyed.died(0)
    keyed.take()
    assert keyed.fresh(0, "c") and not keyed.fresh(0, "dd")


def test_ray_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(ray_module, "find_spec", lambda name: None)
    with pytest.raises(QvlibError, match=r"pip install -e '\.\[ray\]'"):
        make("ray")


def test_parts_of_a_gpu():
    for gpus in (-1, 1.5):
        with pytest.raises(QvlibError, match=r"^gpus_per_worker: .*a part of one GPU, or a whole"):
            make("ray", gpus_per_worker=gpus)
    fit = [(8, 2, 0.3), (8, 2, 0.1), (8, 2, 1), (8, 5, 2), (3, 0, 0.0), (8, 0, 1)]
    assert [ray_module._fit(*case) for case in fit] == [6, 8, 2, 2, 3, 0]
    assert make("ray", device="cuda")._gpus == 1 and make("ray")._gpus == 0


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "head", "head:", ":6379"])
def test_an_address_that_is_none_is_told(address):
    with pytest.raises(QvlibError, match=r"^ray_address: .* is not HOST:PORT; [^\n]*$"):
        make("ray", ray_address=address)


def test_an_address_without_a_cluster_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(QvlibError, match=r"^ray_address: no Ray cluster answers at [^\n]*$"):
        make("ray", ray_address=f"127.0.0.1:{port}")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
def test_another_server_at_the_address_is_told(monkeypatch, answer):
    """One that hangs up, one of another kind, and one that says nothing."""
    monkeypatch.setattr(ray_module, "_ANSWER", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as open_ones:

        def serve():
            connection = open_ones.enter_context(server.accept()[0])
            connection.recv(100)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(QvlibError, match=r"^ray_address: no Ray cluster answers at [^\n]*$"):
            make("ray", ray_address=f"127.0.0.1:{server.getsockname()[1]}")


@pytest.fixture
def model(tmp_path):
    """A folder of files of several kinds."""
    folder = tmp_path / "driver" / "model"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").touch()
    (folder / "deep" / "er" / "weights").write_bytes(random.Random(0).randbytes(300_000))
    (folder / ".lock").touch()
    (folder / ".half.tmp").mkdir()
    (folder / ".half.tmp" / "written").write_text("...")
    (folder / "link").symlink_to("empty")
    return folder


def packed(folder, monkeypatch, size=100_000):
    """A packed folder, and its pieces."""
    monkeypatch.setattr(folders, "CHUNK", size)
    pieces = []
    made = folders.pack(folder, lambda piece: pieces.append(piece) or len(pieces) - 1)
    return made, [pieces[number] for number in made.pieces]


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_is_unpacked_once(model, tmp_path, monkeypatch):
    made, pieces = packed(model, monkeypatch)
    assert len(pieces) == 3 or len(pieces) == 4
    there = tmp_path / "node" / model.relative_to("/")
    assert folders.unpack(made, pieces, tmp_path / "node")
    assert set(tree(there)) == {"empty", "deep/er/weights", "link"}
    assert all((model / name).read_bytes() == content for name, content in tree(there).items())
    assert not folders.unpack(made, iter(()), tmp_path / "node")  # nothing is asked for
    (model / "empty").write_text("not any more")
    changed, pieces = packed(model, monkeypatch)
    assert folders.unpack(changed, pieces, tmp_path / "node")
    assert (there / "empty").read_text() == (there / "link").read_text() == "not any more"
    assert len(list(there.parent.iterdir())) == 3  # the folder, its mark and its lock


def test_a_folder_is_known_by_its_manifest(model, tmp_path, monkeypatch):
    (model / "manifest.json").write_text("{}")
    made, _ = packed(model, monkeypatch)
    there = tmp_path / "node" / model.relative_to("/")
    there.mkdir(parents=True)
    (there / "manifest.json").write_text("{}")
    (there / "own").touch()
    assert not folders.unpack(made, iter(()), tmp_path / "node") and (there / "own").exists()
    assert list(there.parent.iterdir()) == [there]  # not even a lock


def test_what_a_node_made_itself_is_never_replaced(model, tmp_path, monkeypatch):
    made, pieces = packed(model, monkeypatch)
    there = tmp_path / "node" / model.relative_to("/")
    there.mkdir(parents=True)
    (there / "own").touch()
    with pytest.raises(QvlibError, match=r"holds something else on .*; remove it there$"):
        folders.unpack(made, pieces, tmp_path / "node")
    assert set(tree(there)) == {"own"}
    (there / "own").unlink()
    for name, content in tree(model).items():
        if ".tmp" not in name:
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            (there / name).write_bytes(content)
    assert not folders.unpack(made, iter(()), tmp_path / "node")  # the same, whoever made it


def test_unpacking_that_was_killed_is_done_again(model, tmp_path, monkeypatch):
    made, pieces = packed(model, monkeypatch)

    def torn():
        yield pieces[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folders.unpack(made, torn(), tmp_path / "node")
    there = tmp_path / "node" / model.relative_to("/")
    assert not there.exists()
    assert folders.unpack(made, pieces, tmp_path / "node") and len(tree(there)) == 3


def test_many_workers_of_a_node_unpack_once(model, tmp_path, monkeypatch):
    made, pieces = packed(model, monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        unpacked = pool.map(lambda _: folders.unpack(made, pieces, tmp_path / "node"), range(4))
    assert sorted(unpacked) == [False, False, False, True]


def test_a_change_is_seen_without_a_look_into_files(model):
    before = folders.state(model)
    (model / ".lock").write_text("held")
    assert folders.state(model) == before
    os.utime(model / "empty", ns=(0, 1))
    assert folders.state(model) != before


def test_workers_that_cannot_start_are_told(ray_cluster, tmp_path, monkeypatch):
    (tmp_path / "qvlib").mkdir()
    (tmp_path / "qvlib" / "__init__.py").write_text("raise ImportError('a node without it')")
    monkeypatch.setattr(ray_module, "_paths", lambda: [str(tmp_path)])
    with make("ray", workers=2, ray_address=ray_cluster().address) as executor:
        with pytest.raises(QvlibError, match=r"cannot start on the Ray .*: a node without it; "):
            list(executor.stream(workings.numbers, [(0, 1), (1, 1)]))


def test_a_cluster_without_room_is_told(ray_cluster, monkeypatch):
    for name in ("_SILENCE", "_GROWTH"):
        monkeypatch.setattr(ray_module, name, 0.5)
    address = ray_cluster().address
    with make("ray", ray_address=address, gpus_per_worker=1) as executor:
        with pytest.raises(QvlibError, match=r"^no node of the Ray cluster has a CPU and 1 GPUs"):
            list(executor.stream(workings.numbers, [(0, 1)]))


def test_idle_workers_give_their_place_to_others(ray_cluster):
    where = {"executor": "ray", "ray_address": ray_cluster().address, "wandb_mode": "disabled"}
    for count in (2, 1, 2):  # each takes what the one before held
        params = load(ROOT / "params" / "smoke.yml", processes=count, **where)
        with work.workers(params) as executor:
            parts = [(part, 1) for part in range(count)]
            assert len(list(executor.stream(workings.numbers, parts))) == count
    work.end_workers()


def test_workers_that_never_start_are_told(ray_cluster, monkeypatch):
    monkeypatch.setattr(ray_module, "_SILENCE", 0.1)
    monkeypatch.setattr(ray_module, "_GROWTH", 0.2)  # a start takes seconds
    with make("ray", workers=1, ray_address=ray_cluster().address) as executor:
        monkeypatch.setattr(executor._connected(), "started", True)  # as if it were its own
        with pytest.raises(
            QvlibError, match=r"^Ray started no worker within \d+ s; look into Ray's logs"
        ):
            list(executor.stream(workings.numbers, [(0, 1)]))


@pytest.mark.parametrize("size", [10, 300_000])  # the latter lies on the node that made it
def test_a_node_that_dies_loses_and_doubles_nothing(ray_cluster, size):
    arrived, pids = [], set()
    moment = random.Random(size).randrange(1, 60)
    with (
        another_node(ray_cluster(), 1) as node,
        make("ray", ray_address=ray_cluster().address) as executor,
    ):
        assert executor.workers >= 3  # a node that died may still be counted for some seconds
        for part, i, pid in executor.stream(workings.bulky, [(p, 40, size) for p in range(6)]):
            arrived.append((part, i))
            pids.add(pid)
            moment -= len(pids) == 3
            if moment == 0:
                ray_cluster().remove_node(node, allow_graceful=False)
    assert sorted(arrived) == [(p, i) for p in range(6) for i in range(40)] and moment <= 0


def test_a_node_without_the_disk_gets_what_was_placed(ray_cluster, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("1 2 3")
    with (
        another_node(ray_cluster(), 1),
        make("ray", workers=3, ray_address=ray_cluster().address) as executor,
    ):
        for there in (True, False):  # the nodes do share a disk, so it is there, or nowhere
            executor.place([folder])
            before = folder.stat().st_ino
            if not there:
                folder.rename(tmp_path / "elsewhere")
            (tmp_path / f"met {there}").mkdir()
            met = [(part, str(tmp_path / f"met {there}"), 3) for part in range(3)]
            assert len({pid for _, pid, *_ in executor.stream(workings.meeting, met)}) == 3
            assert (folder / "weights").read_text() == "1 2 3"
            assert (folder.stat().st_ino == before) == there
        with pytest.raises(QvlibError, match="nowhere: no such folder"):
            executor.place([tmp_path / "nowhere"])
