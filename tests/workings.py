"""Works for executors: what they yield, and how they die."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from qvlib.base.errors import QvlibError

DONE_HERE = []  # parts that this process did


def numbers(part, count):
    """Yields (part, number, process)."""
    for i in range(count):
        yield part, i, os.getpid()


def meeting(part, folder, least):
    """The first parts meet; yields (part, process, parts that it did, start, end)."""
    started = time.time()
    DONE_HERE.append(part)
    (Path(folder) / str(part)).touch()
    while part < least and len(list(Path(folder).iterdir())) < least:
        assert time.time() < started + 60, "the others did not come"
        time.sleep(0.01)
    time.sleep(0.05)
    yield part, os.getpid(), len(DONE_HERE), started, time.time()


def fails(kind):
    yield "before"
    if kind == "user":
        raise QvlibError("no such file; fetch it")
    if kind == "bug":
        raise ZeroDivisionError("deep inside")
    if kind == "exit":
        sys.exit("no more")
    if kind == "strange":
        yield lambda: "cannot be pickled"
    time.sleep(60)


def killed(part, count, folder, delay, backwards):
    """Part 0 is killed once, after ``delay`` seconds; yields (part, number, process, time).

    Done again, ``backwards``, it goes the other way.
    """
    again = not _first(folder) if part == 0 else False
    if part == 0 and not again:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    for i in reversed(range(count)) if again and backwards else range(count):
        time.sleep(0.01)
        yield part, i, os.getpid(), time.time()


def large(part, size, folder):
    """Yields a small item and a large one, in the middle of which the worker is killed once."""
    first = part == 0 and _first(folder)
    yield part, b"small"
    if first:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
    yield part, bytes(size)
    if first:
        time.sleep(60)


def dies(part, folder):
    """Dies each time, in whatever attempt."""
    (Path(folder) / f"{part}-{time.time()}").touch()
    yield part
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


def slow(part, count):
    """Yields (part, number, process), slowly."""
    for i in range(count):
        time.sleep(0.05)
        yield part, i, os.getpid()


def bulky(part, count, size):
    """Yields (part, number, process) in items of ``size`` bytes more."""
    for i in range(count):
        time.sleep(0.05)
        yield Padded((part, i, os.getpid()), bytes(size))


class Padded(tuple):
    """A tuple that is larger when it travels."""

    def __new__(cls, content, padding):
        self = super().__new__(cls, content)
        self.padding = padding
        return self

    def __reduce__(self):
        return Padded, (tuple(self), self.padding)


def waits(part):
    yield os.getpid()
    time.sleep(600)


def stops(part, count):
    """Part 0 is stopped after its first item."""
    for i in range(count):
        yield part, i, os.getpid()
        if part == 0:
            os.kill(os.getpid(), signal.SIGSTOP)


def eager(part, file):
    """Yields items of a megabyte, and tells a file how many."""
    for i in range(1000):
        Path(file).write_text(str(i))
        yield bytes(1 << 20)


def here(part):
    """Yields what decides how work goes."""
    yield Path.cwd(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("TQDM_DISABLE")


def surroundings(asked):
    """The value of a variable, and whether a module was imported before the work began."""
    variable, module = asked
    yield os.environ.get(variable), module in sys.modules


def takes(size):
    """Work that needs so many bytes."""
    yield len(bytearray(size))


def _first(folder):
    """Whether nobody was here before."""
    try:
        (Path(folder) / "first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
