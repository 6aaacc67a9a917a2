"""Processes of this machine that stream results back: one a core beats threads on small models.

On two shared cores one process with two threads trains a model of a million parameters no faster
than with one thread, and two processes train two of them in the time of one.

Each worker has a pipe of its own, which the driver reads as bytes come: a worker that is killed in
the middle of a record, or stopped, holds up no other. What the pipe cannot take (some hundred
kilobytes) a worker keeps, and waits.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, TypeVar

from qvlib.base.errors import QvlibError
from qvlib.base.executors import Executor
from qvlib.base.executors.parts import DONE, ITEM, READY, Book, message, messages

T = TypeVar("T")
_LENGTH = struct.Struct("!Q")  # goes before each message
_AT_ONCE = 1 << 20  # bytes that are read from one worker before the next has its turn
_PATIENCE = 10.0  # seconds that a worker has to end by itself


def cores() -> int:
    """Cores that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )  # macOS and Windows lack it


def process_count(processes: int, device: str) -> int:
    """How many processes to use: as asked; 0 = one a core on the CPU, one on a GPU."""
    return processes or (cores() if device == "cpu" else 1)


def rank() -> tuple[int, int]:
    """(number of this process, how many there are) where a launcher started them; else (0, 1).

    Launchers are ``accelerate launch`` and ``torchrun``.

    Raises:
        QvlibError: their variables are no numbers.
    """
    told = os.environ.get("RANK") or "0", os.environ.get("WORLD_SIZE") or "1"
    if not all(number.isdecimal() for number in told):
        raise QvlibError(
            f"the variables RANK and WORLD_SIZE say {told[0]!r} and {told[1]!r}, which are no "
            "numbers; unset them, or start by a launcher such as `accelerate launch`"
        )
    return int(told[0]), int(told[1])


def slices(items: Sequence[T], count: int) -> list[list[T]]:
    """Deal items out to ``count`` lists in turn; no list is empty."""
    return [list(items[i::count]) for i in range(min(count, len(items)))]


def stream(work: Callable[..., Iterable[T]], arguments: Sequence[tuple]) -> Iterator[T]:
    """``Executor.stream`` with a process for each part."""
    with Processes(len(arguments)) as executor:
        yield from executor.stream(work, arguments)


_peak = 0  # ru_maxrss of the largest worker that finished a part


def largest_worker() -> int:
    """``ru_maxrss`` of the largest worker so far: those that a server forks are no children."""
    return _peak


class Processes(Executor):
    """Processes of their own; one part, or the parts of one worker, are done in this very process.

    imports: modules that the work needs and that take long to import. A server imports them once,
    for all workers of this process, which are forked from it, and this process does meanwhile.
    """

    def __init__(self, workers: int, imports: Sequence[str] = ()) -> None:
        self.workers = max(1, workers)
        self._imports = tuple(imports)
        self._live: set[_Worker] = set()

    def stream(
        self,
        work: Callable[..., Iterable[T]],
        parts: Sequence[tuple],
        key: Callable[[T], Hashable] | None = None,
    ) -> Iterator[T]:
        """See ``Executor.stream``."""
        count = min(self.workers, len(parts))
        if count <= 1:
            for part in parts:
                yield from work(*part)
            return
        book: Book[T] = Book(len(parts), key)
        workers: list[_Worker] = []
        context = _context(self._imports)
        try:
            while book.open:
                self._occupy(workers, count, book, work, parts, context)
                _wait_for_news(workers)
                for worker in list(workers):
                    yield from worker.items(book, work, parts)
                    if worker.gone:
                        workers.remove(worker)
                        self._end([worker], by_itself=False)
                        if worker.part is not None:
                            book.died(worker.part)
        finally:
            self._end(workers, by_itself=not book.open)

    def place(self, folders: Sequence[Path]) -> None:
        """Nothing to do: all processes read the same disk."""

    def close(self) -> None:
        """End all workers, also those of a ``stream`` that was left in the middle."""
        self._end(list(self._live), by_itself=False)

    def _occupy(
        self,
        workers: list[_Worker],
        count: int,
        book: Book,
        work: Callable,
        parts: Sequence[tuple],
        context: BaseContext,
    ) -> None:
        """Give each part that waits to an idle worker, or to a new one.

        A new worker has its part from the start: so the part bounds how often one is started.
        """
        for worker in workers:
            if worker.part is None and book.waiting:
                worker.part = book.take()
                worker.begin(work, parts)
        while book.waiting and len(workers) < count:
            workers.append(_Worker(book.take(), context))
            self._live.add(workers[-1])

    def _end(self, workers: Sequence[_Worker], by_itself: bool) -> None:
        for worker in workers:
            worker.end(by_itself)
        for worker in workers:
            worker.join()
        self._live.difference_update(workers)


class _Worker:
    """A worker as the driver sees it: its process, its pipe, and the part that it has.

    ``part``: None = it waits for one; ``gone``: it died, and all that it said was heard.
    """

    def __init__(self, part: int, context: BaseContext) -> None:
        self.part: int | None = part
        self.gone = False
        self.socket, theirs = socket.socketpair()
        with theirs:
            told = (theirs, dict(os.environ))
            self.process = context.Process(target=_run, args=told, daemon=True)
            self.process.start()
        self._unread = bytearray()

    def items(self, book: Book[T], work: Callable, parts: Sequence[tuple]) -> Iterator[T]:
        """Its items that have arrived and that the caller has not yet."""
        global _peak
        for kind, value in self._messages():
            if kind == ITEM:
                if book.fresh(self.part, value):
                    yield value
            elif kind == READY:
                self.begin(work, parts)
            elif kind == DONE:
                book.finished(self.part)
                self.part = None
                _peak = max(_peak, value)
            else:
                raise value

    def begin(self, work: Callable, parts: Sequence[tuple]) -> None:
        """Send it its part."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it died, as reading will tell
            _send(self.socket, pickle.dumps((work, parts[self.part]), pickle.HIGHEST_PROTOCOL))

    def end(self, by_itself: bool) -> None:
        """Tell it to end: by the end of its pipe, or at once."""
        self.socket.close()
        if not by_itself:
            self.process.terminate()

    def join(self) -> None:
        """Wait for its end, and not for ever."""
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()

    def _messages(self) -> Iterator[tuple[str, Any]]:
        """What has arrived of what it says."""
        dead = self.process.exitcode is not None  # asked first: what it said before is read below
        try:
            data = self.socket.recv(_AT_ONCE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.gone = dead
            return
        except ConnectionResetError:
            data = b""
        self.gone = not data
        self._unread += data
        start, end = 0, _LENGTH.size
        while len(self._unread) >= end:
            end += _LENGTH.unpack_from(self._unread, start)[0]
            if len(self._unread) < end:
                break
            with memoryview(self._unread) as unread, unread[start + _LENGTH.size : end] as content:
                told = pickle.loads(content)
            yield told
            start, end = end, end + _LENGTH.size
        del self._unread[:start]


def _wait_for_news(workers: Sequence[_Worker]) -> None:
    """Wait until a worker has said something or died.

    A process that a dead worker left behind keeps its pipe and its sentinel open: so a second is
    the longest wait.
    """
    wait([handle for w in workers for handle in (w.socket, w.process.sentinel)], timeout=1.0)


def _send(pipe: socket.socket, content: bytes) -> None:
    pipe.sendall(_LENGTH.pack(len(content)))
    pipe.sendall(content)


def _context(imports: Sequence[str]) -> BaseContext:
    """How workers are started: forked from a server that has imported what they need, or anew.

    On macOS anew: its own libraries do not bear a fork once they are imported.
    """
    if not imports or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(imports))
    forkserver.ensure_running()
    for name in imports:  # until the server has done so too, no worker can start
        importlib.import_module(name)
    return context


def _run(pipe: socket.socket, environment: Mapping[str, str]) -> None:
    """A worker: asks for parts and does them, until its pipe ends.

    environment: the driver's now; a server that it is forked from has an older one.
    """
    os.environ.clear()
    os.environ.update(environment)
    os.environ["TQDM_DISABLE"] = "1"  # the driver shows progress
    # Ctrl-C reaches the driver too, which ends all; one that is interrupted alone is done again.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with pipe, pipe.makefile("rb") as parts:
        with suppress(BrokenPipeError, ConnectionResetError):  # the driver wants no more
            _send(pipe, message(READY))
            while length := parts.read(_LENGTH.size):
                for content in messages(parts.read(*_LENGTH.unpack(length))):
                    _send(pipe, content)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, so each watches for that."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
