"""A tiny run in a process of its own, killed at random moments and started again.

Nothing here knows the stages' insides: a run is a command, and what it finished is what lies on
disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qvlib import pipeline
from qvlib.pipeline.params import EPISODES, Params, make
from qvlib.report import tables
from qvlib.runs.stage import stage_path

ROOT = Path(__file__).parents[1]
COMMAND = "import sys; from tests.killing import run; run(sys.argv[1])"
IN_KERNEL = "import sys; from tests import killing; sys.exit(killing.run_in_kernel(*sys.argv[1:]))"
# Enough for an agent that earns something now and then; what it draws in vain is not drawn again,
# to be quick.
TINY = {
    "catalogue_products": 300,
    "demonstrations": 300,
    "agent_width": 64,
    "agent_layers": 1,
    "agent_heads": 2,
    "vocabulary": 1024,
    "clone_lr": 8e-3,
    "clone_batch": 4,
    "other_demonstrations": 60,
    "other_width": 16,
    "other_layers": 1,
    "filter_actions": False,
    "max_steps": 5,
    "max_action_tokens": 10,
    "train_tasks": 8,
    "iterations": 12,
    "heldout_share": 0.3,
    "dpo_epochs": 3,
    "control_shuffles": 1,
    "test_tasks": 10,
    "search_iterations": 3,
    "bootstrap": 100,
    "batch_size": 3,
    "processes": 1,
    "dtype": "float64",
    "wandb_mode": "disabled",
}
LONGEST = 900  # seconds after which a run that should end is taken to hang
LAST_DIGITS = (
    1e-9  # what a log-probability may differ by where the batches of a run are cut differently
)


@dataclass(frozen=True)
class Way:
    """How a run is started, and who of it may be killed.

    group: all processes at once. first process: the one that was started; its workers, or the
    kernel, must then end by themselves. worker: one of the workers, whose work must be done again
    while the run goes on. kernel: that of the notebook, of which the first process must tell.
    """

    name: str
    processes: int
    victims: tuple[str, ...]
    kernel: bool = False


WAYS = (
    Way("alone", 1, ("group",)),
    Way("workers", 2, ("group", "first process", "worker", "worker")),
    Way("notebook", 2, ("kernel", "worker", "first process"), kernel=True),
)
SERVER = "multiprocessing.forkserver"  # what workers are forked from, and keep the command of
MARKS = {"worker": "spawn_main", "kernel": "ipykernel_launcher"}  # in the command of a process
WORKERS_A_RUN = 2  # a part whose workers die three times is given up, as it should be


@dataclass(frozen=True)
class Course:
    """How long a stage took undisturbed, and how many records it finished on the way.

    No records where it makes all at once. Of an arm the seconds are its share: all are open
    together.
    """

    seconds: float
    records: int


@dataclass(frozen=True)
class Kill:
    """One kill: the stages it was aimed at and struck, its victim, the records finished by then."""

    aimed: str
    struck: str
    victim: str
    finished: int


@dataclass(frozen=True)
class Disturbed:
    """A run that was killed again and again: the kills, and the work that it lost or did twice."""

    kills: tuple[Kill, ...]
    lost: int
    repeated: int


def tiny(folder: Path, **changes: Any) -> Params:
    """The tiny run's parameters, with its work in ``folder``."""
    return make(
        {
            **TINY,
            "runs_dir": str(folder / "runs"),
            "results_dir": str(folder / "results"),
            **changes,
        }
    )


def run(parameters: str | Params) -> None:
    """All stages, from the data to the episodes; of parameters or their JSON."""
    params = parameters if isinstance(parameters, Params) else make(json.loads(parameters))
    for stage in (
        pipeline.train_agents,
        pipeline.collect,
        pipeline.make_pairs,
        pipeline.train_q,
        pipeline.play,
    ):
        stage(params)


def run_alone(params: Params) -> None:
    """``run`` in a process of its own, to a good end."""
    _ended(_start(params, WAYS[0]))


def run_in_kernel(parameters: str, folder: str) -> int:
    """``run`` in a notebook, as the runner does; its exit status."""
    import nbformat

    from qvlib import runner

    path = Path(folder) / "run.ipynb"
    code = f"from tests.killing import run\nrun({parameters!r})"
    cells = [nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    try:
        runner.execute(path, {})
    except runner.NotebookFailed as error:
        print(error)
        return 1
    return 0


def course(params: Params) -> dict[str, Course]:
    """The course of each stage of a finished run, in the order of the stages."""
    arms = len(params.arms())
    return {
        stage: Course(
            manifest["seconds"] / (arms if stage.startswith(EPISODES) else 1),
            _count(params, stage),
        )
        for stage, manifest in _manifests(params).items()
    }


def disturb(
    params: Params,
    targets: Sequence[str],
    undisturbed: dict[str, Course],
    draw: random.Random,
    way: Way = WAYS[0],
) -> Disturbed:
    """Run with a kill aimed at each of ``targets``, then to the end, always by the same command.

    targets: stages in their order. A kill comes at a random moment of its stage: after a random one
    of its records, else a random time after it was opened. A run that ends before its kill was not
    killed.
    """
    kills, lost, workers = [], 0, 0
    kept = finished(params)
    running: Running | None = None
    for aimed in targets:
        others = [victim for victim in way.victims if victim != "worker"]
        victim = draw.choice(way.victims if workers < WORKERS_A_RUN else others)
        if running is None:
            running, workers = _start(params, way), 0
        hit = _strike(running, aimed, undisturbed[aimed], draw, victim)
        found = finished(params)
        lost += missing(kept, found)
        kept = found
        if hit is None:
            break
        struck, victim = hit
        kills.append(Kill(aimed, struck, victim, records(found)))
        workers += victim == "worker"
        if victim != "worker":
            running = None
    if running is None:
        running = _start(params, way)
    _ended(running)
    found = finished(params)
    return Disturbed(tuple(kills), lost + missing(kept, found), repeated(found))


def finished(params: Params) -> dict[str, list[bytes]]:
    """What is finished on disk: whole lines of JSONL files, manifests of the complete stages."""
    runs = Path(params.run.runs_dir)
    found = {
        str(path.relative_to(runs)): path.read_bytes().split(b"\n")[:-1]
        for path in runs.glob("*/*.jsonl")
    }
    for path in sorted(runs.glob("*/manifest.json")):
        if (
            json.loads(path.read_bytes())["status"] == "complete"
        ):  # to do it again would change its manifest
            found[str(path.relative_to(runs))] = [path.read_bytes()]
    return found


def missing(before: dict[str, list[bytes]], after: dict[str, list[bytes]]) -> int:
    """How much of what was finished ``before`` is not where it was ``after``."""
    return sum(
        after.get(name, [])[i : i + 1] != [line]
        for name, lines in before.items()
        for i, line in enumerate(lines)
    )


def repeated(found: dict[str, list[bytes]]) -> int:
    """How many records are of a task that was finished before, in the same arm."""
    count = 0
    for name, lines in found.items():
        if name.endswith(".jsonl"):
            done = [(record.get("arm"), record["task"]) for record in map(json.loads, lines)]
            count += len(done) - len(set(done))
    return count


def records(found: dict[str, list[bytes]]) -> int:
    """How many records are finished."""
    return sum(len(lines) for name, lines in found.items() if name.endswith(".jsonl"))


def outcome(params: Params) -> dict[str, pd.DataFrame | str]:
    """All that a run results in: tables of stages, facts, hashes of weights, the report's tables.

    Times, sessions and the commit are left out: they are of the process, not of the result.
    """
    found: dict[str, Any] = {}
    for stage, manifest in _manifests(params).items():
        folder = stage_path(params, stage)
        found |= {
            f"{stage}/{path.name}": pd.read_parquet(path) for path in folder.glob("*.parquet")
        }
        found |= {
            f"{stage}/{path.relative_to(folder)}": hashlib.blake2b(path.read_bytes()).hexdigest()
            for path in folder.glob("*/*.safetensors")
        }
        found[f"{stage}/facts"] = json.dumps(manifest["facts"], sort_keys=True)
    made = tables.write_tables(pipeline.context_of(params))
    return found | made | {"stages": made["stages"][["stage", "digest"]]}


def differences(
    one: dict[str, Any], other: dict[str, Any], tolerance: float = LAST_DIGITS
) -> dict[str, str]:
    """name -> the first difference, for each part of two outcomes that is not the same.

    Everything must be equal but floats, which may differ by ``tolerance``, of themselves where
    they are above 1: a slope divides by a spread, which may be small.
    """
    different = dict.fromkeys(one.keys() ^ other.keys(), "only one has it")
    for name in one.keys() & other.keys():
        a, b = (
            x[name].to_dict("list") if isinstance(x[name], pd.DataFrame) else x[name]
            for x in (one, other)
        )
        first = next(_apart(a, b, tolerance), None)
        if first is not None:
            different[name] = first
    return different


def _apart(one: Any, other: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """Where two values differ, however deep, and how."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _apart(one[key], other[key], tolerance, f"{place}.{key}")
    elif (
        isinstance(one, (list, np.ndarray))
        and isinstance(other, (list, np.ndarray))
        and len(one) == len(other)
    ):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _apart(a, b, tolerance, f"{place}[{i}]")
    elif isinstance(one, float) and isinstance(other, float):
        near = math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
        if not (near or (math.isnan(one) and math.isnan(other))):
            yield f"{place}: {one} and {other}"
    elif type(one) is not type(other) or isinstance(one, (dict, list, np.ndarray)) or one != other:
        yield f"{place}: {one!r} and {other!r}"


@dataclass(frozen=True)
class Running:
    """A run under way, and how often each stage had been opened before it."""

    params: Params
    process: subprocess.Popen
    before: dict[str, int]

    @property
    def log(self) -> Path:
        """What it says."""
        return _log(self.params)

    def opened(self) -> list[str]:
        """The stages that it has opened, in their order."""
        sessions = _sessions(self.params).items()
        return [stage for stage, count in sessions if count > self.before.get(stage, 0)]

    def all(self, what: str) -> list[int]:
        """Its workers, or its kernel: numbers of processes."""
        told = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True)
        rows = [line.split(None, 2) for line in told.stdout.splitlines()]
        family, grown = {str(self.process.pid)}, True
        while grown:
            more = {pid for pid, parent, _ in rows if parent in family} - family
            family, grown = family | more, bool(more)
        servers = {pid for pid, _, args in rows if SERVER in args} if what == "worker" else set()
        return [
            int(pid)
            for pid, parent, args in rows
            if pid in family and (MARKS[what] in args or {pid, parent} <= servers)
        ]


def _log(params: Params) -> Path:
    return Path(params.run.runs_dir).parent / "log.txt"


def _start(params: Params, way: Way) -> Running:
    """The command of a run, the same each time, in a process group of its own."""
    before, log = _sessions(params), _log(params)
    log.parent.mkdir(parents=True, exist_ok=True)
    given = json.dumps(params.flat())
    command = [IN_KERNEL, given, str(log.parent)] if way.kernel else [COMMAND, given]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", *command],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, "TQDM_DISABLE": "1"},
        )
    return Running(params, process, before)


def _strike(
    running: Running, aimed: str, undisturbed: Course, draw: random.Random, victim: str
) -> tuple[str, str] | None:
    """Kill at a random moment of the stage ``aimed``, or if done of a later one.

    Gives the stage that was open (``episodes`` for any arm, since all are open together),
    ``between`` where none was, and who was killed: the first process where no worker was there.
    None where the run ended before.
    """
    params, process = running.params, running.process
    have = _count(params, aimed)
    after = draw.randrange(have, max(undisturbed.records, have + 1))
    delay = draw.uniform(0, undisturbed.seconds / max(1, undisturbed.records))
    later = params.stages()[params.stages().index(aimed) :]
    end = time.monotonic() + LONGEST
    while process.poll() is None and not (
        set(running.opened()) & set(later) and _count(params, aimed) >= after
    ):
        assert time.monotonic() < end, "the run hangs"
        time.sleep(0.005)
    while victim == "worker" and process.poll() is None and not running.all("worker"):
        assert time.monotonic() < end, "the run hangs"
        time.sleep(0.05)  # they start after their stage
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        victim = _kill(running, victim, draw)
        manifests = _manifests(params)
        struck = [s for s in running.opened() if manifests[s]["status"] != "complete"]
        return (struck[-1].partition("/")[0] if struck else "between"), victim
    _ended(running)
    return None


def _kill(running: Running, victim: str, draw: random.Random) -> str:
    """Kill, and wait for the end of what cannot go on without; gives who it was."""
    process, kernels = running.process, running.all("kernel")
    if victim == "worker":
        workers = running.all("worker")
        if workers:
            with suppress(ProcessLookupError):  # it has ended by itself meanwhile
                os.kill(draw.choice(workers), signal.SIGKILL)
            return victim
        victim = "kernel" if kernels else "first process"
    if victim == "kernel" and not kernels:
        victim = "first process"
    if victim == "kernel":
        os.kill(kernels[0], signal.SIGKILL)
        assert process.wait(LONGEST) == 1 and "its process died" in running.log.read_text()
        return victim
    os.killpg(process.pid, signal.SIGKILL) if victim == "group" else process.kill()
    process.wait()
    end = time.monotonic() + LONGEST
    while any(_lives(pid) for pid in kernels):  # one whose runner is gone ends by itself
        assert time.monotonic() < end, "the kernel goes on without its runner"
        time.sleep(0.05)
    return victim


def _lives(pid: int) -> bool:
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(told.stdout.strip()) and not told.stdout.startswith("Z")


def _ended(running: Running) -> None:
    """Wait for a run's own end, which must be a good one."""
    code = running.process.wait(LONGEST)
    assert code == 0, running.log.read_text()[-3000:]


def _manifests(params: Params) -> dict[str, dict[str, Any]]:
    paths = {stage: stage_path(params, stage) / "manifest.json" for stage in params.stages()}
    return {stage: json.loads(path.read_bytes()) for stage, path in paths.items() if path.exists()}


def _count(params: Params, stage: str) -> int:
    """How many records a stage has finished."""
    lines = stage_path(params, stage).glob("*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in lines)


def _sessions(params: Params) -> dict[str, int]:
    return {stage: manifest["sessions"] for stage, manifest in _manifests(params).items()}
