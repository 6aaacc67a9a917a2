"""Collecting search trees, and the preference pairs that come out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tqdm.auto import tqdm

from ..errors import QvlibError
from ..lockstep import lockstep
from ..mcts import SearchConfig, search, tree_record
from ..parallel import slices, stream
from ..params import Params
from ..preferences import Pair, build_pairs
from ..runs import Stage, open_stage, read_stage
from ..types import Task
from .agents import load_model, sampler
from .common import processes, write_table
from .world import uses, world


def search_config(params: Params) -> SearchConfig:
    """The search of collecting."""
    return SearchConfig(params.iterations, params.expand_n, params.exploration, params.uct, params.stop_at_success,
                        params.invalid_value, params.timeout_value)


def collect(params: Params) -> Stage:
    """Search the training tasks; a tree a line in ``trees.jsonl``, a node a row in ``trees.parquet``."""
    environment = world(params)
    with open_stage(params, "trees") as stage:
        if stage.complete:
            return stage
        tasks = uses(params, environment).search
        done = stage.done("trees")
        todo = [task for task in tasks if task.id not in done]
        parts = slices(todo, processes(params))
        with tqdm(total=len(tasks), initial=len(done), desc="searching", unit="task") as bar:
            for record in stream(_search, [(params, part) for part in parts]):
                stage.append("trees", {"run": stage.path.name, **record})
                bar.update()
        stage.to_parquet("trees", ["task", "node"], explode="nodes")
        stage.finish(tasks=len(tasks))
    return stage


def _search(params: Params, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Search tasks; yields their trees as records."""
    environment = world(params)
    agent = sampler(params, environment, load_model(params))
    jobs = (search(environment, task, search_config(params), params.seed) for task in tasks)
    yield from map(tree_record, lockstep(jobs, agent, params.batch_size))


def make_pairs(params: Params) -> Stage:
    """Preference pairs of the collected trees, in the trees' task order: ``pairs.parquet``."""
    with open_stage(params, "pairs") as stage:
        if not stage.complete:
            trees = sorted(read_stage(params, "trees").records("trees"), key=lambda t: t["task"])
            pairs = build_pairs(trees, params.pairs, params.min_margin, params.min_visits)
            if not pairs:
                raise QvlibError("no preference pairs in these trees; lower min_margin or min_visits, or raise "
                                 "train_tasks or iterations")
            write_table(stage, "pairs", [p.record() for p in pairs])
            stage.finish(pairs=len(pairs), tasks=len({p.task for p in pairs}), trees=len(trees))
    return stage


def load_pairs(params: Params) -> list[Pair]:
    """The pairs of ``make_pairs``."""
    rows = read_stage(params, "pairs").table("pairs").to_dict("records")
    return [Pair(**{**row, "path": tuple(row["path"])}) for row in rows]
