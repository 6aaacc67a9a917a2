"""Collecting search trees, in one round or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tqdm.auto import tqdm

from qvlib.base.executors.processes import slices, stream
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, Select, published_uct_select, search, uct_select
from qvlib.core.reranker import Reranked
from qvlib.core.trees import tree_record
from qvlib.core.types import Agent, Environment, Task
from qvlib.pipeline.agents import sampler
from qvlib.pipeline.common import for_each_seed, processes
from qvlib.pipeline.models import load_model
from qvlib.pipeline.pairs import make_pairs
from qvlib.pipeline.params import Params
from qvlib.pipeline.q import fit_q, load_q
from qvlib.pipeline.world import uses, world
from qvlib.runs.stage import Stage, open_stage


def search_config(params: Params) -> SearchConfig:
    """The search of collecting."""
    return SearchConfig(
        **{name: getattr(params, name) for name in SearchConfig.__dataclass_fields__}
    )


def search_select(params: Params) -> Select:
    """How that search selects: UCT of the paper, or of its published code."""
    rules = {"mean": uct_select, "published_code": published_uct_select}
    return rules[params.uct](params.exploration)


@for_each_seed
def collect(params: Params) -> Stage:
    """Search the training tasks; a tree a line in ``trees.jsonl``, a node a row in ``trees.parquet``.

    Rounds before this one, and the Q model that guides it, are made first where they are missing.
    """
    environment = world(params)
    if params.rounds > 1:
        before = params.round_before()
        collect(before), make_pairs(before), fit_q(before)
    with open_stage(params, "trees") as stage:
        if stage.complete:
            return stage
        tasks = uses(params, environment).search
        done = stage.done("trees")
        todo = [task for task in tasks if task.id not in done]
        parts = slices(todo, processes(params))
        with tqdm(total=len(tasks), initial=len(done), desc=_title(params), unit="task") as bar:
            for record in stream(_search, [(params, part) for part in parts]):
                stage.append("trees", {"run": stage.path.name, **record})
                bar.update()
        stage.to_parquet("trees", ["task", "node"], explode="nodes")
        stage.finish(tasks=len(tasks))
    return stage


def _title(params: Params) -> str:
    return "searching" if params.rounds == 1 else f"searching, round {params.rounds}"


def _search(params: Params, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Search tasks; yields their trees as records."""
    environment = world(params)
    config, select = search_config(params), search_select(params)
    jobs = (search(environment, task, config, params.seed, select=select) for task in tasks)
    yield from map(tree_record, lockstep(jobs, _collector(params, environment), params.batch_size))


def _collector(params: Params, environment: Environment) -> Agent:
    """The agent; in a later round, what it would execute of ``expand_n`` candidates, drawn softly so that children differ."""
    agent = sampler(params, environment, load_model(params))
    if params.rounds == 1:
        return agent
    return Reranked(agent, load_q(params.round_before()), 2 * params.expand_n, temperature=1.0)
