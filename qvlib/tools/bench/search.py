"""Search of many trees together, against one tree at a time and one model call at a time."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from qvlib.tools.bench.common import Rows, clock, interleaved

TREES = 64
TOGETHER, ONE_TREE, ONE_CALL = f"{TREES} trees together", "one tree at a time", "one call at a time"
LEAST = {ONE_TREE: 3.0, ONE_CALL: 8.0}  # what the trees together are to gain over these
EVERY = {TOGETHER: 1, ONE_TREE: 4, ONE_CALL: 8}  # every so manieth task is searched, to save time


@dataclass(frozen=True)
class Searched:
    """What a search came to: its trees by task, and model calls and computed tokens a task."""

    trees: dict[str, Any]
    calls: float
    tokens: float


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """The search of ``params/quick.yml`` on dev tasks, with its own agent and one thread a process.

    A process a core is how trees are collected; one tree cannot use a second core. Each way starts
    with an empty memory; one call at a time has none, and asks for each reply by itself. Times are
    CPU seconds of a process, medians of rounds in which the ways take turns. The trees together are
    to do at least 3 times the tasks a second of one tree at a time and 8 times those of one call at
    a time. The limit of each: what it would be if every token that is computed took no longer than
    in one pass over a full batch of prompts, on each core, and all else no time. ``same_trees``
    counts the trees that came out the same, as all should but for a draw on the edge of a rounding.

    Raises:
        QvlibError: the agent of ``params/quick.yml`` is not trained.
    """
    from qvlib.pipeline import make
    from qvlib.pipeline.work import processes

    bench, cores = Bench(), processes(make({}))
    searched: dict[str, Searched] = {}
    seconds = interleaved(
        {
            way: lambda way=way: searched.update({way: bench.search(way, EVERY[way])})
            for way in EVERY
        },
        repeats,
    )
    full = bench.full_batch(repeats)
    rows = [_row(way, 1, len(searched[way].trees) / seconds[way], [searched[way]]) for way in EVERY]
    if cores > 1:
        with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
            rates, parts = zip(
                *pool.map(_part, range(cores), [cores] * cores, [repeats] * cores), strict=True
            )
        rows.insert(0, _row(TOGETHER, cores, sum(rates), parts))
        searched |= {f"part {i}": part for i, part in enumerate(parts)}
    slow = {row["way"]: row["tasks/s"] for row in rows}
    for row in rows:
        limit = row["processes"] * full / row["tokens a task"] if row["way"] == TOGETHER else None
        for way, name in ((ONE_TREE, "tree"), (ONE_CALL, "call")):
            row[f"times one {name}"] = row["tasks/s"] / slow[way]
            row[f"its limit (at least {LEAST[way]:g})"] = limit and limit / slow[way]
        row["of the limit"] = f"{row['tasks/s'] / limit:.0%}" if limit else ""
    same = [
        searched[TOGETHER].trees[task] == nodes
        for way in searched
        if way != TOGETHER
        for task, nodes in searched[way].trees.items()
    ]
    alone = next(row for row in reversed(rows) if row["way"] == TOGETHER)
    return rows, {
        "ratio": rows[0]["times one tree"],
        "least": LEAST[ONE_TREE],
        "ratio_one_call": rows[0]["times one call"],
        "least_one_call": LEAST[ONE_CALL],
        "one_process": {
            "ratio": alone["times one tree"],
            "ratio_one_call": alone["times one call"],
        },
        "full_batch_tokens_per_s": round(full),
        "same_trees": sum(same),
        "of_trees": len(same),
    }


def _row(way: str, processes: int, rate: float, parts: Sequence[Searched]) -> dict[str, Any]:
    return {
        "way": way,
        "processes": processes,
        "tasks/s": rate,
        "calls a task": statistics.mean(part.calls for part in parts),
        "tokens a task": statistics.mean(part.tokens for part in parts),
    }


def _part(number: int, processes: int, repeats: int) -> tuple[float, Searched]:
    """A process' share of the trees: tasks a CPU second, and what it came to."""
    bench, seconds = Bench(), []
    for _ in range(repeats + 1):
        start = clock()
        part = bench.search(TOGETHER, processes, number)
        seconds.append(clock() - start)
    return len(part.trees) / statistics.median(seconds[1:]), part


class Bench:
    """The agent, environment and search of ``params/quick.yml``, and all prompts that were met."""

    def __init__(self) -> None:
        from qvlib.agents.search import search_config, selection
        from qvlib.pipeline import context_of, make

        self.params = make({})
        context = context_of(self.params)
        self.environment, self.lm = context.environment, context.model()
        self.config = search_config(self.params.search)
        self.select = selection(self.params.search)
        self.prompts: set[tuple[int, ...]] = set()

    def search(self, way: str, every: int, first: int = 0) -> Searched:
        """Search every so manieth task from a first one, in one of the ways."""
        from qvlib.core.filtering import Filtered
        from qvlib.core.lockstep import lockstep
        from qvlib.core.mcts import search
        from qvlib.core.trees import tree_record
        from qvlib.models.local import LocalAgent

        self.lm.forget()
        self.lm.usage.clear()
        tasks = self.environment.tasks("dev")[:TREES][first::every]
        counting = Counting(self.lm, singly=way == ONE_CALL)
        agent = Filtered(
            LocalAgent(counting, self.params.sampling.temperature, self.params.sampling.top_p),
            self.environment,
        )
        jobs = (
            search(self.environment, task, self.config, self.params.run.seed, select=self.select)
            for task in tasks
        )
        trees = {
            tree.task.id: [
                (n["node"], n["action"], n["visits"], n["value"])
                for n in tree_record(tree)["nodes"]
            ]
            for tree in lockstep(jobs, agent, TREES if way == TOGETHER else 1)
        }
        self.prompts |= counting.met
        return Searched(
            trees, counting.calls / len(tasks), self.lm.usage["computed_tokens"] / len(tasks)
        )

    def full_batch(self, repeats: int) -> float:
        """Tokens a second of one pass over a full batch of the search's prompts.

        Those of middle length.
        """
        prompts = sorted(self.prompts, key=len)
        start = max(0, len(prompts) - TREES) // 2
        rows = [(prompt, (self.lm.end,)) for prompt in prompts[start : start + TREES]]
        seconds = interleaved({"pass": lambda: self.lm.reply_logits(rows)}, 3 * repeats)
        return sum(len(prompt) for prompt, _ in rows) / seconds["pass"]


class Counting:
    """A local model whose calls are counted and prompts kept.

    ``singly`` makes each reply a call without memory.
    """

    def __init__(self, lm: Any, singly: bool) -> None:
        self.lm, self.singly, self.calls, self.met = lm, singly, 0, set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)

    def samples(
        self, prompts: Sequence[Any], draws: Sequence[Sequence[Any]], *settings: float
    ) -> list[list]:
        """As ``LocalModel.samples``."""
        self.met.update(prompts)
        if not self.singly:
            self.calls += 1
            return self.lm.samples(prompts, draws, *settings)
        self.calls += sum(map(len, draws))
        return [
            [self._alone(prompt, draw, *settings) for draw in row]
            for prompt, row in zip(prompts, draws, strict=True)
        ]

    def _alone(self, prompt: Any, draw: Any, *settings: float) -> Any:
        self.lm.forget()
        return self.lm.samples([prompt], [[draw]], *settings)[0][0]
