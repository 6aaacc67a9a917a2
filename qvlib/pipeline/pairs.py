"""The stage of the preference pairs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.preferences import build_pairs
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.pair_rows import load_pairs
from qvlib.pipeline.params import Params
from qvlib.pipeline.work import write_table
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage


def make_pairs(run: Params | Context) -> Stage:
    """Preference pairs of each chain's trees, of all rounds, in task order: ``pairs.parquet``.

    Gives the first chain's.
    """
    context = context_of(run)
    for chain in chains(context):
        make_chain_pairs(chain)
    return read_stage(context.params.each_seed()[0], "pairs")


def make_chain_pairs(context: Context) -> None:
    """The pairs of one chain.

    Raises:
        QvlibError: the trees give none.
    """
    params = context.params
    if is_complete(params, "pairs"):
        return
    with open_stage(params, "pairs") as stage:
        if stage.complete:
            return
        rule = params.pairs
        trees = _Counted(each_tree(params))
        pairs = build_pairs(trees, rule.pairs, rule.min_margin, rule.min_visits)
        if not pairs:
            raise QvlibError(
                "no preference pairs in these trees; lower min_margin or min_visits, or raise "
                "train_tasks or iterations"
            )
        write_table(stage, "pairs", [pair.record() for pair in pairs])
        tasks = len({pair.task for pair in pairs})
        stage.finish(pairs=len(pairs), tasks=tasks, trees=trees.count)


class _Counted:
    """Counts what is taken from an iterator."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.count = 0
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.count += 1
            yield item


def each_tree(params: Params) -> Iterator[dict[str, Any]]:
    """The trees that make pairs, those of earlier rounds included, sorted by task, one at a time.

    However many there are, few are held at once.
    """
    rounds = params.each_round()
    sorted_trees = (read_stage(each, "trees").each("trees", ["task"]) for each in rounds)
    return heapq.merge(*sorted_trees, key=lambda tree: tree["task"])


def load_trees(params: Params) -> list[dict[str, Any]]:
    """The trees of ``each_tree``, all at once."""
    return list(each_tree(params))


__all__ = ["each_tree", "load_pairs", "load_trees", "make_chain_pairs", "make_pairs"]
