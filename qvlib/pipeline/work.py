"""How stages hand work out and take it back: workers yield, the driver alone writes."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvlib.base import executors
from qvlib.base.errors import Hindrance, QvlibError, of_the_machine
from qvlib.base.executors import Executor
from qvlib.base.executors.processes import process_count, rank
from qvlib.base.files import hidden, remove
from qvlib.models.names import is_remote
from qvlib.models.saving import saving
from qvlib.pipeline.params import Params
from qvlib.runs import parquet
from qvlib.runs.stage import Stage

IMPORTS = ("torch", "transformers.modeling_utils", "qvlib.models.local")
"""What every worker needs and takes long to import."""


@contextmanager
def workers(params: Params, alone: bool = False) -> Iterator[Executor]:
    """The run's workers. Those of Ray stay, since starting them takes long; see ``end_workers``.

    alone: on this machine one part at a time.
    """
    run = params.run
    if is_elsewhere(params):
        yield _ray(run.processes, run.device, run.ray_address, run.gpus_per_worker)
        return
    count = 1 if alone else processes(params)
    with executors.make("processes", workers=count, device=run.device, imports=IMPORTS) as executor:
        yield executor


_kept: dict[tuple[Any, ...], Executor] = {}  # one at most: idle workers hold their CPUs


def _ray(*how: Any) -> Executor:
    """The workers that are there, if they are such; others end, or these would wait for them."""
    if how not in _kept:
        end_workers()
        count, device, address, gpus = how
        _kept[how] = executors.make(
            "ray", workers=count, device=device, ray_address=address, gpus_per_worker=gpus
        )
    return _kept[how]


def end_workers() -> None:
    """End Ray's workers that wait for more work, and give their CPUs back to the cluster."""
    while _kept:
        _kept.popitem()[1].close()


atexit.register(end_workers)


def is_elsewhere(params: Params) -> bool:
    """Whether the work is not done on this machine's own processes."""
    return params.run.executor == "ray" and rank()[1] == 1


def part_count(executor: Executor, params: Params) -> int:
    """Into how many parts work on many tasks is divided.

    On this machine one a worker, whose memory of what it has met then serves longest; on a cluster
    more, since a node that is lost takes its parts along.
    """
    return executor.workers * (4 if is_elsewhere(params) else 1)


def processes(params: Params) -> int:
    """Worker processes of this machine: one a core on a CPU.

    One where a server does the work, whose limit of requests holds in each process, and where a
    launcher has started several already.
    """
    names = (params.agent.agent, params.other_agent.other_agent, params.judge)
    if any(map(is_remote, names)) or rank()[1] > 1:
        return 1
    return process_count(params.run.processes, params.run.device)


@dataclass(frozen=True)
class Progress:
    """How far a worker is with something that takes long."""

    label: str
    step: int
    steps: int


@dataclass(frozen=True)
class Failed:
    """A part of the work that went wrong where others go on."""

    part: str
    message: str


def guarded(work: Callable[..., Iterable[Any]], part: str, *arguments: Any) -> Iterator[Any]:
    """What ``work`` yields; what it raises becomes a last item, so that other parts go on.

    Raises:
        Hindrance: what has nothing to do with the part, such as a folder that is in use; so does
            what the machine lacks, memory or disk.
    """
    try:
        yield from work(*arguments)
    except Hindrance:
        raise
    except (QvlibError, RuntimeError) as error:
        if of_the_machine(error):
            raise
        yield Failed(part, str(error).strip() or type(error).__name__)


class Parcel:
    """The files of a folder; read only when it is sent to another process."""

    def __init__(self, folder: Path | None, files: Mapping[str, bytes] | None = None) -> None:
        self._folder, self._files = folder, files

    def __reduce__(self) -> tuple[Any, ...]:
        return Parcel, (None, self._files if self._folder is None else _read(self._folder))

    def write(self, folder: Path) -> None:
        """Write the files into a folder that is not there yet."""
        if self._folder is not None:
            shutil.copytree(self._folder, folder)
            return
        for name, content in (self._files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def _read(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@dataclass(frozen=True)
class Made:
    """What a worker has made for a stage: folders and tables by name, facts for the manifest.

    seconds: that it took by itself, beside whatever other workers did.
    """

    part: str
    folders: Mapping[str, Parcel] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def keep(self, stage: Stage) -> None:
        """Write all but the facts into the stage's folder, each whole or not at all."""
        for name, rows in self.tables.items():
            write_table(stage, name, rows)
        for name, parcel in self.folders.items():
            final = stage.path / name
            temporary = hidden(final)
            with saving(final):
                parcel.write(temporary)
                remove(final)
                os.replace(temporary, final)


def clear(scratch: Path) -> None:
    """Delete the checkpoints of a training whose model is kept."""
    shutil.rmtree(scratch, ignore_errors=True)


def clear_elsewhere(params: Params, scratch: Path) -> None:
    """``clear`` on a machine that the driver does not see, when it has what was made."""
    if is_elsewhere(params):
        clear(scratch)


def write_table(stage: Stage, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table made at once, whole or not at all."""
    parquet.write(stage.path / f"{name}.parquet", lambda: rows)


def check_device(params: Params) -> None:
    """Raise QvlibError where the GPU that is asked for is not there."""
    device = params.run.device
    if device == "cpu" or params.run.executor == "ray":  # a cluster's driver may have none
        return
    import torch

    number = int(device.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        raise QvlibError(
            f"device: {device}, but torch {torch.__version__} finds {torch.cuda.device_count()} "
            "GPUs here; set device: cpu, or install a torch for CUDA and its driver"
        )


def on_own_device(params: Params) -> Params:
    """The parameters with this process's own GPU, where a launcher started one process a GPU."""
    if rank()[1] == 1 or params.run.device != "cuda":
        return params
    return params.replace(device=f"cuda:{os.environ['LOCAL_RANK']}")


def keep_to_share(params: Params) -> None:
    """What a process may take of the machine: one core, since threads wait for each other.

    On a GPU float32 is multiplied in TF32, and a worker has its part of the memory; the rest is
    for the driver, and for what each process's CUDA takes beside its tensors.
    """
    set_threads(params, 1)
    device = params.run.device
    if device == "cpu":
        return
    import torch

    torch.set_float32_matmul_precision("high")
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
        torch.cuda.set_per_process_memory_fraction(
            0.9 / (processes(params) + 1), int(device.partition(":")[2] or 0)
        )


def set_threads(params: Params, count: int) -> None:
    """Threads of this process on the CPU; more pay where one process trains a large model."""
    if params.run.device == "cpu":
        import torch

        torch.set_num_threads(count)
