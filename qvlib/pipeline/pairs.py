"""Preference pairs of the collected trees."""

from __future__ import annotations

from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.preferences import Pair, build_pairs
from qvlib.pipeline.common import for_each_seed, write_table
from qvlib.pipeline.params import Params
from qvlib.runs.stage import Stage, open_stage, read_stage


@for_each_seed
def make_pairs(params: Params) -> Stage:
    """Preference pairs of the collected trees of all rounds, in the trees' task order: ``pairs.parquet``."""
    with open_stage(params, "pairs") as stage:
        if not stage.complete:
            trees = load_trees(params)
            pairs = build_pairs(trees, params.pairs, params.min_margin, params.min_visits)
            if not pairs:
                raise QvlibError(
                    "no preference pairs in these trees; lower min_margin or min_visits, or raise "
                    "train_tasks or iterations"
                )
            write_table(stage, "pairs", [p.record() for p in pairs])
            stage.finish(pairs=len(pairs), tasks=len({p.task for p in pairs}), trees=len(trees))
    return stage


def load_trees(params: Params) -> list[dict[str, Any]]:
    """The trees that make pairs, those of earlier rounds included, sorted by task."""
    found = read_stage(params, "trees").records("trees")
    if params.rounds > 1:
        found += load_trees(params.round_before())
    return sorted(found, key=lambda t: t["task"])


def load_pairs(params: Params) -> list[Pair]:
    """The pairs of ``make_pairs``."""
    rows = read_stage(params, "pairs").table("pairs").to_dict("records")
    return [Pair(**{**row, "path": tuple(row["path"])}) for row in rows]
