"""Search of many trees together, against one tree at a time and one model call at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .common import Rows

TREES = 64


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """The search of ``params/quick.yml`` on dev tasks, with its own agent, in one process and thread.

    Each way starts with an empty memory; one call at a time has none. The trees are asserted to be the same.

    Raises:
        QvlibError: the agent of ``params/quick.yml`` is not trained; the message names the notebook.
    """
    from .. import pipeline
    from ..lockstep import lockstep
    from ..mcts import search, tree_record
    from ..models.local import LocalAgent
    from ..params import Params
    from ..reranker import Filtered

    params = Params()
    environment, config = pipeline.world(params), pipeline.search_config(params)
    tasks = environment.tasks("dev")[:TREES]

    def searched(some: Sequence[Any], width: int, singly: bool = False) -> tuple[float, Counting, dict[str, Any]]:
        lm = pipeline.load_model(params)
        lm.memory = 0 if singly else lm.memory
        counting = Counting(lm, singly)
        agent = Filtered(LocalAgent(counting, params.temperature, params.top_p), environment)
        start = time.perf_counter()
        trees = list(lockstep((search(environment, task, config, params.seed) for task in some), agent, width))
        return time.perf_counter() - start, counting, {t.task.id: tree_record(t)["nodes"] for t in trees}

    ways = {f"{TREES} trees together": (tasks, TREES, False), "one tree at a time": (tasks[: TREES // 2], 1, False),
            "one call at a time": (tasks[: TREES // 8], 1, True)}
    rows, trees = [], []
    for name, arguments in ways.items():
        seconds, counting, found = searched(*arguments)
        count = len(found)
        rows.append({"way": name, "tasks": count, "tasks/s": count / seconds, "calls a task": counting.calls / count,
                     "tokens computed a task": counting.usage["computed_tokens"] / count})
        trees.append(found)
    for task, nodes in (item for other in trees[1:] for item in other.items()):
        assert _shape(nodes) == _shape(trees[0][task]), f"task {task}: another batch gave another tree"
    for row in rows:
        row["times one tree"], row["times one call"] = (row["tasks/s"] / rows[i]["tasks/s"] for i in (1, 2))
    return rows, {"ratio": rows[0]["times one tree"], "ratio_one_call": rows[0]["times one call"]}


def _shape(nodes: list[dict[str, Any]]) -> list[tuple]:
    return [(n["node"], n["action"], n["visits"], n["value"]) for n in nodes]


class Counting:
    """A local model whose calls are counted; ``singly`` makes each reply a call of its own."""

    def __init__(self, lm: Any, singly: bool) -> None:
        self.lm, self.singly, self.calls = lm, singly, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)

    def sample(self, prompts: Sequence[Any], draws: Sequence[Sequence[Any]], temperature: float, top_p: float) -> list[list]:
        """As ``LocalModel.sample``."""
        if not self.singly:
            self.calls += 1
            return self.lm.sample(prompts, draws, temperature, top_p)
        self.calls += sum(map(len, draws))
        return [[self.lm.sample([prompt], [[draw]], temperature, top_p)[0][0] for draw in row]
                for prompt, row in zip(prompts, draws, strict=True)]
