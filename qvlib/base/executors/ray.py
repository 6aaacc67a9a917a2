"""Actors of a Ray cluster that stream results back, for who outgrows one machine.

A worker is an actor with a CPU, one thread and, where asked for, a share of a GPU. The driver asks
it for one message after the other, a few ahead: so a worker is never far ahead of the driver. Ray
restarts nothing: what a dead actor or node had to do is given to another, as with ``processes``.

Nodes need the driver's Python packages. Code of the project is found by the driver's paths, where
they are the same; folders that workers read are given to other nodes by ``place``.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import sysconfig
import tempfile
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from qvlib.base.errors import QvlibError
from qvlib.base.executors import Executor
from qvlib.base.executors.folders import Packed, pack, state
from qvlib.base.executors.parts import ATTEMPTS, DONE, ITEM, READY, Book
from qvlib.base.executors.processes import cores
from qvlib.base.paths import PROJECT, project_root

T = TypeVar("T")
_AHEAD = 4  # messages that a worker is asked for before the driver has read the first
_ANSWER = 5.0  # seconds that the address of a cluster has to answer
_SILENCE = 10.0  # seconds without a message after which the cluster is looked at
_NOTICE = 60.0  # ... after which the user is told
_GROWTH = 300.0  # seconds that a cluster has to grow a node with room, or to start a worker
_SETTINGS = b"\x04"  # the kind of HTTP/2's first frame, by which a server of gRPC is known
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
OWN = {  # variables of a cluster's processes where the machine is there for this work
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other process starve the workers
    "RAY_worker_register_timeout_seconds": "300",  # after Ray's 60 a slow start begins anew
}
_SAME = (  # variables that decide what the work finds, and hold no secret
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "QVLIB_CACHE",
    "XDG_CACHE_HOME",
)


class Ray(Executor):
    """Actors of a cluster, which is connected to, or started here, when the first work comes.

    Raises:
        QvlibError: Ray is not installed, nothing answers at the address, or a share of GPUs that
            Ray does not deal out.
    """

    def __init__(self, workers: int, address: str, gpus: float) -> None:
        if find_spec("ray") is None:
            raise QvlibError("executor: ray is not installed; pip install -e '.[ray]'")
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise QvlibError(
                f"gpus_per_worker: {gpus:g}; set a part of one GPU, or a whole number of them"
            )
        if address not in ("", "auto"):
            _must_answer(address)
        self._asked, self._address, self._gpus = workers, address, gpus
        self._cluster: _Cluster | None = None
        self._noticed = False
        self._live: set[_Actor] = set()
        self._idle: deque[_Actor] = deque()  # of streams before; what they keep serves again
        self._placed: dict[Path, tuple[Any, Packed]] = {}

    @property
    def workers(self) -> int:
        """As many as asked, else as many as the cluster has room for now."""
        return self._asked or max(1, self._connected().room(self._gpus))

    def stream(
        self,
        work: Callable[..., Iterable[T]],
        parts: Sequence[tuple],
        key: Callable[[T], Hashable] | None = None,
    ) -> Iterator[T]:
        """See ``Executor.stream``; workers that do not start are an error, too."""
        book: Book[T] = Book(len(parts), key)
        actors: deque[_Actor] = deque()
        failed, since = 0, time.monotonic()
        try:
            while book.open:
                self._occupy(actors, book, work, parts, failed < ATTEMPTS)
                actor = _next(actors)
                if actor is None:
                    self._look(actors, time.monotonic() - since)
                    continue
                since = time.monotonic()
                started = actor.ready
                yield from actor.items(book)
                if actor.gone:
                    actors.remove(actor)
                    self._end([actor])
                    if actor.part is not None:
                        book.died(actor.part)
                    failed += not (started or actor.reused)
                    if failed >= ATTEMPTS and not any(actor.ready for actor in actors):
                        raise QvlibError(
                            f"workers cannot start on the Ray cluster: {actor.why}; install the "
                            "driver's packages on every node, and look into Ray's logs"
                        )
                elif not started:
                    failed = 0
        finally:
            spare = [actor for actor in actors if not book.open and actor.ready]
            self._idle.extend(spare)
            self._end([actor for actor in actors if actor not in spare])

    def place(self, folders: Sequence[Path]) -> None:
        """See ``Executor.place``; a cluster of this machine alone has all folders.

        Raises:
            QvlibError: there is no such folder.
        """
        cluster = self._connected()
        for folder in () if cluster.started else folders:
            if folder not in self._placed or self._placed[folder][0] != state(folder):
                self._placed[folder] = (state(folder), pack(folder, cluster.ray.put))

    def close(self) -> None:
        """End all workers, and the cluster or the connection to it, if this executor made it."""
        if self._cluster is not None:
            self._end(self._live)
            self._idle.clear()
            self._cluster.close()
            self._cluster = None
            self._placed.clear()  # what the cluster held

    def _look(self, actors: Iterable[_Actor], silent: float) -> None:
        """After some silence, raise QvlibError where no worker can ever start."""
        if any(actor.ready for actor in actors):
            return
        cluster = self._connected()
        if not cluster.room(self._gpus) and (cluster.started or silent > _GROWTH):
            raise QvlibError(
                f"no node of the Ray cluster has a CPU and {self._gpus:g} GPUs for a worker; add "
                "nodes, or lower gpus_per_worker"
            )
        if cluster.started and silent > _GROWTH:
            raise QvlibError(
                f"Ray started no worker within {silent:.0f} s; look into Ray's logs, or set "
                "executor: processes"
            )
        if silent > _NOTICE and not self._noticed:
            self._noticed = True
            logging.getLogger(__name__).warning("waiting for room on the Ray cluster")

    def _connected(self) -> _Cluster:
        if self._cluster is None:
            self._cluster = _Cluster(self._address, self._asked)
        return self._cluster

    def _occupy(
        self,
        actors: deque[_Actor],
        book: Book,
        work: Callable,
        parts: Sequence[tuple],
        hire: bool,
    ) -> None:
        """Give each part that waits to an idle worker; have as many as there is work for.

        A part waits until a worker has started, since the cluster may never have room for all.
        """
        while hire and len(actors) < min(self.workers, book.open):
            placed = [packed for _, packed in self._placed.values()]
            if self._idle:
                actor = self._idle.popleft()
                actor.enter(self._connected(), placed, reused=True)
            else:
                actor = _Actor(self._connected(), self._gpus, placed)
                self._live.add(actor)
            actors.append(actor)
        for actor in actors:
            if actor.ready and actor.part is None and book.waiting:
                actor.part = book.take()
                actor.begin(work, parts[actor.part])

    def _end(self, actors: Iterable[_Actor]) -> None:
        for actor in self._live.intersection(actors):  # the others ended with their cluster
            actor.end()
            self._live.remove(actor)


class _Cluster:
    """A connection to a cluster. ``started``: it was started here, for this executor."""

    def __init__(self, address: str, workers: int) -> None:
        import ray

        self.ray = ray
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self.connected_here = not ray.is_initialized()
        self.started = self.connected_here and not address
        self._light: tempfile.TemporaryDirectory | None = None
        if self.started:
            self._start(workers or cores())
        elif self.connected_here:
            self._connect(address)
        elif address not in ("", "auto", ray.get_runtime_context().gcs_address):
            raise QvlibError(
                f"ray_address: {address}, but this process is connected to "
                f"{ray.get_runtime_context().gcs_address} already; call ray.shutdown() first"
            )
        self.node = ray.get_runtime_context().get_node_id()

    def room(self, gpus: float) -> int:
        """How many workers with a CPU and this many GPUs each have room, if no other job has."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(_fit(node.get("CPU", 0.0), node.get("GPU", 0.0), gpus) for node in nodes)

    def close(self) -> None:
        """Disconnect, where the connection was made here; what was started ends."""
        if self.connected_here:
            self.ray.shutdown()
        if self._light is not None:
            self._light.cleanup()

    def _connect(self, address: str) -> None:
        try:
            self.ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise QvlibError(
                f"ray_address: {address} cannot be connected to: {' '.join(str(error).split())}; "
                "start a cluster there (ray start --head), or leave it empty for a local one"
            ) from None

    def _start(self, workers: int) -> None:
        """Start a cluster of this machine."""
        self._light = tempfile.TemporaryDirectory(prefix="qvlib-ray-")
        with environment(PYTHONPATH=lean(self._light.name), **OWN):
            try:
                self.ray.init(
                    "local",
                    num_cpus=workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except Exception as error:  # Ray raises no narrower one
                raise QvlibError(
                    f"Ray cannot be started here: {_line(error)}; run again when the machine is "
                    "less busy, or set executor: processes"
                ) from error


class _Actor:
    """A worker as the driver sees it: an actor, the messages it was asked for, and its part.

    ``ready``: it has started; ``part``: None = it waits for one; ``gone``: it died, for ``why``.
    """

    def __init__(self, cluster: _Cluster, gpus: float, placed: Sequence[Packed]) -> None:
        self._ray = cluster.ray
        actor = cluster.ray.remote(_Worker).options(num_cpus=1, num_gpus=gpus, max_restarts=0)
        self._handle = actor.remote(os.getcwd(), str(project_root()), _paths(), _variables())
        self.part: int | None = None
        self.gone = False
        self.why = ""
        self.enter(cluster, placed)

    def enter(self, cluster: _Cluster, placed: Sequence[Packed], reused: bool = False) -> None:
        """Have it put in place what it will read; then it is ready for a part.

        reused: it has done parts before, and may have died since.
        """
        self.ready, self.reused = False, reused
        self.asked = deque([self._handle.enter.remote(cluster.node, list(placed))])

    def begin(self, work: Callable, arguments: tuple) -> None:
        """Give it its part."""
        from ray import cloudpickle

        self.asked.append(self._handle.begin.remote(cloudpickle.dumps((work, arguments))))
        self.asked.extend(self._handle.go_on.remote() for _ in range(_AHEAD - 1))

    def items(self, book: Book[T]) -> Iterator[T]:
        """The item that its next message has, if the caller has it not yet."""
        heard = self._message()
        if heard is None:
            return
        kind, value = heard
        if kind == ITEM:
            self.asked.append(self._handle.go_on.remote())
            if book.fresh(self.part, value):
                yield value
        elif kind == READY:
            self.ready = True
        elif kind == DONE:
            self.asked.clear()
            book.finished(self.part)
            self.part = None
        else:
            raise value

    def end(self) -> None:
        """End it at once, unless it ended with the connection: Ray would make a new one."""
        if self._ray.is_initialized():
            self._ray.kill(self._handle)

    def _message(self) -> tuple[str, Any] | None:
        """The next message; None where it died, or the message with its node."""
        from ray import exceptions

        try:
            return pickle.loads(self._ray.get(self.asked.popleft()))
        except exceptions.RayTaskError as error:
            if self.ready:
                raise RuntimeError(f"in a worker process:\n{error}") from None
            self.gone, self.why = True, _line(error)
        except exceptions.RayError as error:  # its process, its node or its memory is gone
            self.gone, self.why = True, _line(error)
        return None


class _Worker:
    """The actor. It travels by value and finds qvlib by the driver's paths.

    So it needs no environment of Ray's, for which a second Python would be started each time.
    """

    def __init__(
        self, folder: str, root: str, paths: Sequence[str], variables: Mapping[str, str]
    ) -> None:
        os.environ.update(variables)
        sys.path[:0] = [path for path in paths if path not in sys.path]
        if not Path(folder).is_dir():  # a disk without the driver's folder: relative paths of
            Path(root).mkdir(parents=True, exist_ok=True)  # parameters are meant from the root
            folder = root
        os.chdir(folder)
        self._messages: Iterator[bytes] = iter(())

    def enter(self, driver: str, placed: Sequence[Any]) -> bytes:
        """Put in place what is read here, unless this is the driver's node; gives a message."""
        import ray

        from qvlib.base.errors import QvlibError
        from qvlib.base.executors.folders import unpack
        from qvlib.base.executors.parts import ERROR, READY, message

        try:
            if ray.get_runtime_context().get_node_id() != driver:
                for packed in placed:
                    unpack(packed, (ray.get(piece) for piece in packed.pieces))
        except QvlibError as error:
            return message(ERROR, error)
        return message(READY)

    def begin(self, parcel: bytes) -> bytes:
        """Begin a part; gives its first message."""
        from qvlib.base.executors.parts import messages

        self._messages = messages(parcel)
        return next(self._messages)

    def go_on(self) -> bytes:
        """The next message of the part; nothing after its last."""
        return next(self._messages, b"")


def _next(actors: deque[_Actor]) -> _Actor | None:
    """A worker that has a message, or died; None where all are silent for some time.

    It has its turn last the next time, so that none waits for the others.
    """
    import ray

    heads = {actor.asked[0]: actor for actor in actors if actor.asked}
    heard, _ = ray.wait(list(heads), timeout=_SILENCE)
    if not heard:
        return None
    actor = heads[heard[0]]
    actors.remove(actor)
    actors.append(actor)
    return actor


def _must_answer(address: str) -> None:
    """Raise QvlibError where no server of Ray's kind listens: Ray itself might wait for ever."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdigit()):
        raise QvlibError(
            f"ray_address: {address!r} is not HOST:PORT; give the address that `ray start --head` "
            "shows, on a machine of the cluster, or leave it empty for a local one"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(_HELLO)
                if connection.recv(9)[3:4] != _SETTINGS:
                    raise OSError("what answers is not Ray")
    except (OSError, OverflowError) as error:
        raise QvlibError(
            f"ray_address: no Ray cluster answers at {address}: {_line(error)}; start one there "
            "(ray start --head), or leave ray_address empty for a local one"
        ) from None


def _fit(cpus: float, gpus_there: float, gpus: float) -> int:
    """How many workers fit on a node; parts of a GPU are of one and the same."""
    if not gpus:
        return int(cpus)
    shares = int(gpus_there) * int(1 / gpus + 1e-9) if gpus < 1 else int(gpus_there / gpus)
    return min(int(cpus), shares)


def lean(folder: str) -> str:
    """Make a folder of modules with which Ray's processes start sooner; gives a path with it.

    Each of them imports jsonschema, and that, where Jupyter is installed, a grammar of URIs which
    it can do without: seconds of a core, each time. On a busy machine they would together be too
    late for the 15 seconds that Ray gives them.
    """
    (Path(folder) / "rfc3987_syntax.py").write_text('raise ImportError("left out")\n')
    return os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """This process with these variables, which what it starts meanwhile inherits."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _variables() -> dict[str, str]:
    """The environment of a worker, where it is another than its node's."""
    return {name: os.environ[name] for name in _SAME if name in os.environ} | {
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",  # the driver shows progress
        PROJECT: str(project_root()),  # which a worker's disk may not have
    }


def _paths() -> list[str]:
    """The driver's folders of modules but those of its Python, the current one first."""
    python = [Path(sysconfig.get_path(which)) for which in ("stdlib", "platstdlib")]
    folders = [Path.cwd(), *(Path.cwd() / entry for entry in sys.path)]
    return list(
        dict.fromkeys(
            str(folder)
            for folder in folders
            if not {"site-packages", "dist-packages"} & set(folder.parts)
            and not any(folder.is_relative_to(own) for own in python)
        )
    )


def _line(error: BaseException) -> str:
    """What an error says last, in a short line."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:200] if lines else type(error).__name__
