"""Search of many trees together, against one tree at a time and one model call at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .common import Rows, clock, interleaved

TREES = 64
LEAST = {"one tree at a time": 3.0, "one call at a time": 8.0}
SHARE = {"one tree at a time": 2, "one call at a time": 8}  # every so manieth task is searched, to save time
TOGETHER = f"{TREES} trees together"


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """The search of ``params/quick.yml`` on dev tasks, with its own agent, in one process and thread.

    Each way starts with an empty memory; one call at a time has none. ``same_trees`` counts those that came out the same,
    as all should but for a draw on the edge of a rounding. ``times slower`` is against the trees together and is to be at
    least as told. Its limit: the tokens computed a task, times the model's tokens a second in full batches, both against
    the trees together; that is what the gain would be if calls were always full and all but the model took no time.

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

    def searched(name: str, some: Sequence[Any], width: int) -> tuple[dict[str, Any], Counting, dict[str, Any]]:
        counting = Counting(pipeline.load_model(params), singly=name == "one call at a time")
        agent = Filtered(LocalAgent(counting, params.temperature, params.top_p), environment)
        start = clock()
        trees = list(lockstep((search(environment, task, config, params.seed) for task in some), agent, width))
        row = {"way": name, "tasks": len(some), "tasks/s": len(some) / (clock() - start),
               "calls a task": counting.calls / len(some), "tokens a task": counting.usage["computed_tokens"] / len(some)}
        return row, counting, {t.task.id: _shape(tree_record(t)["nodes"]) for t in trees}

    found = {TOGETHER: searched(TOGETHER, tasks, TREES)} | {name: searched(name, tasks[::SHARE[name]], 1) for name in LEAST}
    first, counting, trees = found[TOGETHER]
    rates = throughput(counting, repeats)
    for name, (row, _, _) in found.items():
        row["model's tokens/s"] = rates[name]
        row["times slower"] = first["tasks/s"] / row["tasks/s"]
        row["limit"] = row["tokens a task"] / first["tokens a task"] * rates[TOGETHER] / rates[name]
        row["of the limit"] = f"{row['times slower'] / row['limit']:.0%}"
        row["at least"] = LEAST.get(name)
    again = [trees[task] == nodes for name in LEAST for task, nodes in found[name][2].items()]
    rows = [row for row, _, _ in found.values()]
    return rows, {"ratio": rows[1]["times slower"], "least": LEAST[rows[1]["way"]], "ratio_one_call": rows[2]["times slower"],
                  "least_one_call": LEAST[rows[2]["way"]], "same_trees": sum(again), "of_trees": len(again)}


def throughput(counting: Counting, repeats: int, calls: int = 4) -> dict[str, float]:
    """Tokens a second of the model alone, with nothing remembered, on some of the fullest calls of a search."""
    fullest = sorted(counting.asked, key=lambda call: len(call[0]), reverse=True)[: (len(counting.asked) + 1) // 2]
    some = fullest[:: max(1, len(fullest) // calls)]
    lm, tokens = counting.lm, {}
    ways = {TOGETHER: lambda p, n: [(p, n)], "one tree at a time": lambda p, n: [([a], [b]) for a, b in zip(p, n, strict=True)],
            "one call at a time": lambda p, n: [([a], [1]) for a, b in zip(p, n, strict=True) for _ in range(b)]}

    def replay(way: str) -> None:
        lm.usage.clear()
        for prompts, counts, *settings in some:
            for part, numbers in ways[way](prompts, counts):
                lm._nuclei.clear()
                lm.sample(part, [[_draw(p, k) for k in range(n)] for p, n in zip(part, numbers, strict=True)], *settings)
        tokens[way] = lm.usage["computed_tokens"]

    seconds = interleaved({way: lambda way=way: replay(way) for way in ways}, repeats)
    return {way: tokens[way] / seconds[way] for way in ways}


def _draw(prompt: Sequence[int], number: int) -> Any:
    from ..seeding import generator

    return generator("bench", len(prompt), number).random


def _shape(nodes: list[dict[str, Any]]) -> list[tuple]:
    return [(n["node"], n["action"], n["visits"], n["value"]) for n in nodes]


class Counting:
    """A local model whose calls are counted and kept; ``singly`` makes each reply a call of its own, and nothing remembered."""

    def __init__(self, lm: Any, singly: bool) -> None:
        self.lm, self.singly, self.calls, self.asked = lm, singly, 0, []
        if singly:
            lm.memory = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)

    def sample(self, prompts: Sequence[Any], draws: Sequence[Sequence[Any]], temperature: float, top_p: float) -> list[list]:
        """As ``LocalModel.sample``."""
        self.asked.append((prompts, [len(row) for row in draws], temperature, top_p))
        if not self.singly:
            self.calls += 1
            return self.lm.sample(prompts, draws, temperature, top_p)
        self.calls += sum(map(len, draws))
        return [[self.lm.sample([prompt], [[draw]], temperature, top_p)[0][0] for draw in row]
                for prompt, row in zip(prompts, draws, strict=True)]
