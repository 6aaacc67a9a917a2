"""Two workers against one, of each executor: what is lost where work is divided."""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.executors import NAMES, Executor, make
from qvlib.tools.bench.common import Rows

PARTS, TASKS = 6, 6  # parts for each worker, tasks that a part searches together
LEAST = 0.9  # efficiency of two workers, on two cores
AGENT = {  # a small agent, cloned from a few episodes: enough to walk, and made in some seconds
    "catalogue_products": 500,
    "demonstrations": 100,
    "other_demonstrations": 0,
    "iterations": 6,
    "processes": 1,
    "wandb_mode": "disabled",
}
Key = tuple[str, int]  # executor, workers


@dataclass(frozen=True)
class Part:
    """A part that a worker did: which process, from when to when, and CPU seconds of that."""

    process: int
    start: float
    end: float
    cpu: float


@dataclass(frozen=True)
class Measured:
    """A stream: seconds until all workers work as they go on to, and what they do from then on.

    ``rate``: parts a second; ``cpu``: CPU seconds a part; ``busy``: CPU seconds a second a worker.
    """

    startup: float
    rate: float
    cpu: float
    busy: float


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """Search of the embedded shop by one worker and by two, for each executor: parts a second.

    Each part is the same work, with an empty memory: six trees searched together, by a small
    agent that is cloned from 100 episodes before. A worker does 6 parts; the trees travel to the
    driver. Ways take turns; numbers are medians of the rounds.

    Steady state is from when the last worker has done its first part until one has done its last,
    by the clock: parts a second, idle time between parts included. Efficiency is the parts a second
    of two workers over twice those of one, in the same round; it is to be at least 0.9 on two
    cores, where nothing else runs. Whether that was so ``busy`` tells: CPU seconds a second of a
    worker, 1 if it never waited for a core or the driver. CPU seconds a part tell what two workers
    cost each other where they share a machine. ``start-up`` is what comes before the steady state
    but for one part: processes, imports, the model. With ``processes`` one worker is the driver
    itself, which has all that. A local Ray cluster is started before, in ``cluster_s`` seconds at
    most, and its own processes run beside the workers. ``same_trees`` counts the trees that came
    out as in the first part, as all should.
    """
    from qvlib import pipeline
    from qvlib.pipeline.params import make as make_params

    measured: dict[Key, list[Measured]] = defaultdict(list)
    trees: list[Any] = []
    started: list[float] = []
    with tempfile.TemporaryDirectory(prefix="qvlib-bench-") as folder:
        params = make_params({**AGENT, "runs_dir": folder})
        pipeline.train_agents(params)
        for _, name, workers in itertools.product(range(repeats), NAMES, (1, 2)):
            start = time.monotonic()
            with make(name, workers=workers) as executor:  # a cluster has room for so many
                executor.place([Path(folder)])
                started.append(time.monotonic() - start)
                measured[name, workers].append(measure(executor, params, trees))
    rows = [_row(name, workers, measured) for name, workers in itertools.product(NAMES, (1, 2))]
    efficiencies = {name: statistics.median(_efficiencies(name, measured)) for name in NAMES}
    return rows, {
        "ratio": min(efficiencies.values()),
        "least": LEAST,
        "efficiency": efficiencies,
        "cluster_s": max(started),
        "same_trees": sum(tree == trees[i % TASKS] for i, tree in enumerate(trees)),
        "of_trees": len(trees),
    }


def measure(executor: Executor, params: Any, trees: list[Any]) -> Measured:
    """A stream by all workers of an executor; adds the trees of each part to ``trees``.

    Raises:
        QvlibError: a worker came when the others had nearly done.
    """
    start = time.monotonic()
    done: dict[int, list[Part]] = defaultdict(list)
    searched: dict[int, list[Any]] = defaultdict(list)
    parts = [(params, number) for number in range(PARTS * executor.workers)]
    for number, item in executor.stream(search_part, parts):
        if isinstance(item, Part):
            done[item.process].append(item)
            trees.extend(sorted(searched[number], key=lambda tree: tree["task"]))
        else:
            searched[number].append(item)
    if len(done) < executor.workers or min(map(len, done.values())) < 3:
        raise QvlibError("bench cluster: a worker came too late to be measured; run it again")
    return steady(start, list(done.values()))


def steady(start: float, workers: list[list[Part]]) -> Measured:
    """The steady state of a stream that began at ``start``: the parts of each worker, in turn."""
    first = max(parts[0].end for parts in workers)
    last = min(parts[-1].end for parts in workers)
    shares = [
        (max(0.0, min(part.end, last) - max(part.start, first)) / (part.end - part.start), part)
        for part in itertools.chain(*workers)
    ]
    count = sum(share for share, _ in shares)
    cpu = sum(share * part.cpu for share, part in shares)
    seconds = last - first
    length = statistics.median(part.end - part.start for _, part in shares)
    return Measured(
        startup=first - start - length,
        rate=count / seconds,
        cpu=cpu / count,
        busy=cpu / seconds / len(workers),
    )


def search_part(params: Any, number: int) -> Iterator[tuple[int, Any]]:
    """The work: yields (number, tree) for each tree, and last (number, what was spent)."""
    from qvlib.agents.search import search_config, selection
    from qvlib.core.lockstep import lockstep
    from qvlib.core.mcts import search
    from qvlib.core.trees import tree_record

    start, cpu = time.monotonic(), time.process_time()
    environment, lm, agent = _loaded(params)
    lm.forget()
    config, select = search_config(params.search), selection(params.search)
    tasks = environment.tasks("dev")[:TASKS]
    jobs = (search(environment, task, config, params.run.seed, select=select) for task in tasks)
    for tree in lockstep(jobs, agent, TASKS):
        yield number, tree_record(tree)
    spent = time.process_time() - cpu
    yield number, Part(os.getpid(), start, time.monotonic(), spent)


@functools.cache
def _loaded(params: Any) -> tuple[Any, Any, Any]:
    """The environment, the model and its agent, once a process."""
    import torch

    from qvlib import pipeline

    torch.set_num_threads(1)
    context = pipeline.Context(params)
    return context.environment, context.model(), context.sampler()


def _row(name: str, workers: int, measured: dict[Key, list[Measured]]) -> dict[str, Any]:
    def median(which: str) -> float:
        return statistics.median(getattr(one, which) for one in measured[name, workers])

    efficiency = statistics.median(_efficiencies(name, measured)) if workers == 2 else None
    return {
        "executor": name,
        "workers": workers,
        "start-up (s)": median("startup"),
        "parts/s": median("rate"),
        "CPU s a part": median("cpu"),
        "busy": f"{median('busy'):.0%}",
        "efficiency": efficiency,
        "at least": LEAST if workers == 2 else None,
    }


def _efficiencies(name: str, measured: dict[Key, list[Measured]]) -> list[float]:
    """Of each round."""
    rounds = zip(measured[name, 1], measured[name, 2], strict=True)
    return [two.rate / (2 * one.rate) for one, two in rounds]
