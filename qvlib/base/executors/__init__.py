"""Where stages do their work: in processes of this machine, or on a Ray cluster.

Workers yield, the driver writes: ``stream`` runs a generator function on many parts and gives their
items as they come. The items, and what is written of them, are the same wherever the work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from qvlib.base.errors import QvlibError

T = TypeVar("T")
NAMES = ("processes", "ray")


class Executor(Protocol):
    """Workers that do the parts of a work; a context manager, which ends them.

    ``workers``: how many parts are under way at once, at most.
    """

    workers: int

    def stream(
        self,
        work: Callable[..., Iterable[T]],
        parts: Sequence[tuple],
        key: Callable[[T], Hashable] | None = None,
    ) -> Iterator[T]:
        """Yield what ``work(*part)`` yields for each part as it comes, a part's items in order.

        A worker takes the next part when it is free, and stays the same process through one
        ``stream``, so that what a module keeps (a model that it loaded) serves again. The part of a
        worker that died is done again, by another; none of its items is yielded twice. A worker
        that is far ahead of the caller waits: only a bounded number of items lies unread.

        Args:
            work: a generator function of a module; its parts and items are pickled.
            parts: the arguments of each call. There may be many more parts than workers.
            key: names an item within its part, for work that may go another way when it is done
                again; without it items are counted, as is right for deterministic work.

        Raises:
            QvlibError: as ``work`` raised it; or workers died three times at the same part.
            RuntimeError: anything else that ``work`` raised, with the worker's traceback.
        """
        ...

    def place(self, folders: Sequence[Path]) -> None:
        """Name folders that workers read: a node that does not share the disk gets them once."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def make(
    name: str,
    *,
    workers: int = 0,
    device: str = "cpu",
    ray_address: str = "",
    gpus_per_worker: float = 0.0,
    imports: Sequence[str] = (),
) -> Executor:
    """An executor by its name.

    Args:
        name: ``processes`` or ``ray``.
        workers: parts at once; 0 = with ``processes`` one a core, on a GPU one; with ``ray`` one
            for each CPU of the cluster, or for each share of its GPUs.
        device: what the work computes on: ``cpu``, ``cuda``, ``cuda:1``.
        ray_address: ``ray``: the cluster's, ``HOST:PORT`` or ``auto``; empty = start a local one.
        gpus_per_worker: ``ray``: GPUs of a worker, a fraction or a whole number; 0 = none, and a
            whole one where ``device`` is a GPU.
        imports: ``processes``: see ``Processes``; not on a GPU, which bears no fork.

    Raises:
        QvlibError: no executor has that name, Ray is not installed or not at that address, or a
            share of GPUs that Ray does not deal out.
    """
    if name == "processes":
        from qvlib.base.executors.processes import Processes, process_count

        return Processes(process_count(workers, device), imports if device == "cpu" else ())
    if name == "ray":
        from qvlib.base.executors.ray import Ray

        share = gpus_per_worker or float(device.startswith("cuda"))
        return Ray(workers, ray_address, share)
    raise QvlibError(f"executor: {name!r} is none; set {' or '.join(NAMES)}")
