"""Several processes that stream results back, since one process a core beats threads on small models.

On two shared cores one process with two threads trains a model of a million parameters no faster than
with one thread, and two processes train two of them in the time of one.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from qvlib.base.errors import QvlibError

T = TypeVar("T")
_DONE, _ITEM, _ERROR = "done", "item", "error"


def cores() -> int:
    """Cores that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )  # macOS and Windows lack it


def process_count(processes: int, device: str) -> int:
    """How many processes to use: as asked; 0 = one a core on the CPU, one on a GPU."""
    return processes or (cores() if device == "cpu" else 1)


def rank() -> tuple[int, int]:
    """(number of this process, how many there are) where ``accelerate launch`` or ``torchrun`` started them; else (0, 1)."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def slices(items: Sequence[T], count: int) -> list[list[T]]:
    """Deal items out to ``count`` lists in turn; no list is empty."""
    return [list(items[i::count]) for i in range(min(count, len(items)))]


def stream(work: Callable[..., Iterable[T]], arguments: Sequence[tuple]) -> Iterator[T]:
    """Yield what ``work(*a)`` yields, for each ``a`` in its own process, as it comes.

    ``work`` is a function of a module, since processes are spawned. With one ``a`` it runs here.

    Raises:
        QvlibError: as ``work`` raised it, or a process died (for want of memory, most likely).
        RuntimeError: anything else that ``work`` raised, with its traceback.
    """
    if len(arguments) <= 1:
        for one in arguments:
            yield from work(*one)
        return
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue(maxsize=256)
    workers = [
        context.Process(target=_run, args=(work, one, results), daemon=True) for one in arguments
    ]
    try:
        for worker in workers:
            worker.start()
        running = len(workers)
        while running:
            kind, value = _next(results, workers)
            if kind == _ITEM:
                yield value
            elif kind == _DONE:
                running -= 1
            else:
                raise value
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()
        results.close()


def _next(results: Any, workers: Sequence[Any]) -> tuple[str, Any]:
    """The next message; a process that died without one is an error, not a wait for ever."""
    while True:
        try:
            return results.get(timeout=1.0)
        except queue.Empty:
            if any(w.exitcode not in (None, 0) for w in workers):
                return _ERROR, QvlibError(
                    "a worker process died, most likely for want of memory; lower processes "
                    "or batch_size and run again, everything finished is kept"
                )


def _run(work: Callable[..., Iterable[Any]], arguments: tuple, results: Any) -> None:
    import traceback

    os.environ["TQDM_DISABLE"] = "1"  # the parent shows progress
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for item in work(*arguments):
            results.put((_ITEM, item))
        results.put((_DONE, None))
    except QvlibError as error:
        results.put((_ERROR, error))
    except KeyboardInterrupt:  # Ctrl-C reaches the parent too, which ends the others
        pass
    except BaseException:  # whatever it was, the parent raises it with the worker's traceback
        results.put((_ERROR, RuntimeError("in a worker process:\n" + traceback.format_exc())))


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, so each watches for that."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
