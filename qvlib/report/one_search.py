"""One search, iteration by iteration: which leaf, what it was found to be worth, how values move.

The task is searched again, with the draws of the run's search: nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from qvlib.agents.search import search_config, selection
from qvlib.base import markup
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import Node, Select, search
from qvlib.core.trees import children_by_parent, tree_record
from qvlib.core.types import Task
from qvlib.pipeline.context import Context
from qvlib.pipeline.trees import STREAM, collector, seen


@dataclass
class Watched:
    """A rule of selection that keeps a row an iteration, for ``search(..., select=...)``."""

    rule: Select
    rows: list[dict[str, Any]] = field(default_factory=list)
    _last: tuple[Node, float] | None = None

    def __call__(self, top: Node) -> Node | None:
        self.finish()
        leaf = self.rule(top)
        self._last = None if leaf is None else (leaf, leaf.value_sum)
        return leaf

    def finish(self) -> list[dict[str, Any]]:
        """The rows, that of the iteration under way as well: call it once the search has ended."""
        if self._last is not None:
            self.rows.append(_row(len(self.rows) + 1, *self._last))
            self._last = None
        return self.rows


def _row(number: int, leaf: Node, value_before: float) -> dict[str, Any]:
    """What an iteration did, from the leaf as it was selected and as it is now."""
    evaluated = max(leaf.children, key=lambda child: child.visits, default=leaf)
    root = leaf
    while root.parent is not None:
        root = root.parent
    return {
        "iteration": number,
        "selected": leaf.id or "root",
        "new actions": len(leaf.children),
        "evaluated": evaluated.id or "root",
        "its action": evaluated.action,
        "value": evaluated.value_sum - (0.0 if leaf.children else value_before),
        "root N": root.visits,
        "root V": root.value,
    }


def again(
    context: Context, task: Task, settings: Any | None = None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Search a task here and now: its tree as a record, and a row an iteration.

    settings: of the search (``params.search``); None = the run's. The agent is the run's, so that
    the run's settings give the run's tree again.

    The table's columns: ``iteration``; ``selected``, the leaf (a path of child numbers); how many
    ``new actions`` it was given; ``evaluated``, the node whose value was found, and ``its action``;
    that ``value`` in [-1, 1]; the root's visits and value after it was backed up.
    """
    chosen = context.params.search if settings is None else settings
    watched = Watched(selection(chosen, seen(context)))
    seed = context.params.run.seed
    config = search_config(chosen)
    job = search(
        context.environment,
        task,
        config,
        seed,
        select=watched,
        judge=context.judge(),
        stream=STREAM,
    )
    (tree,) = lockstep([job], context.judging(collector(context)), 1)
    return tree_record(tree), pd.DataFrame(watched.finish())


def compared(tree: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
    """Whether a task that was searched again has the run's tree, in a sentence."""
    first, second = ([(n["node"], n["visits"]) for n in t["nodes"]] for t in (tree, kept))
    if first == second:
        return "Searched again, it has the tree that the run collected: every draw has its own key."
    return (
        "Searched again, it has another tree than the run collected: "
        "in another batch a model's numbers are rounded otherwise (`dtype: float64` holds them)."
    )


def first_actions(trees: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Visits and value of the first actions in several trees of one task, a row an action."""
    columns: dict[str, dict[str, Any]] = {}
    for name, tree in trees.items():
        children = children_by_parent(tree).get(tree["nodes"][0]["node"], ())
        visited = {node["action"]: node for node in children if node["visits"]}
        columns[f"N, {name}"] = {action: node["visits"] for action, node in visited.items()}
        columns[f"V, {name}"] = {action: node["value"] for action, node in visited.items()}
    table = pd.DataFrame(columns).rename_axis("first action").reset_index()
    for column in table.columns[1::2]:
        table[column] = table[column].fillna(0).astype(int)
    table["first action"] = [markup.code(action) for action in table["first action"]]
    return table.sort_values(list(table.columns[1:3]), ascending=False, ignore_index=True)
