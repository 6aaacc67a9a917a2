"""Search trees as plain records, made by ``search`` or by anyone: write, check and read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.mcts import Node, Tree

NODE_KEYS = ("node", "parent", "action", "visits", "value")

Row = Mapping[str, Any]
"""One node of a tree record; it has at least ``NODE_KEYS``."""


def tree_record(tree: Tree) -> dict[str, Any]:
    """The tree as plain data: a record a task, with one row a node under ``nodes``, parents first.

    The schema (docs in README): ``node``/``parent`` are paths of child numbers, ``value`` the mean
    of the backed-up values, ``observation`` what the action showed, ``reward`` the terminal reward;
    ``best_actions`` are those of ``Tree``.
    """
    return {
        "task": tree.task.id,
        "group": tree.task.group,
        "instruction": tree.task.instruction,
        "iterations": tree.iterations,
        "env_steps": tree.cost.env_steps,
        **tree.cost.drawn(),
        "best_actions": list(tree.best_actions),
        "nodes": [_row(node) for node in tree.root.walk()],
    }


def _row(node: Node) -> dict[str, Any]:
    return {
        "node": node.id,
        "parent": node.parent.id if node.parent else None,
        "depth": node.depth,
        "action": node.action,
        "observation": node.state.observation,
        "visits": node.visits,
        "value_sum": node.value_sum,
        "value": node.value,
        "reward": node.state.reward,
        "terminal": node.state.done,
        "valid": node.state.valid,
        "samples": node.samples,
        "log_prob": node.log_prob,
        "best_reward": node.best_reward,
    }


def check_tree(tree: Mapping[str, Any]) -> None:
    """Raise QvlibError unless a record has a task, and nodes with ``NODE_KEYS``, parents first."""
    known: set[str] = set()
    for node in tree.get("nodes", ()):
        missing = [key for key in NODE_KEYS if key not in node]
        if missing or (node["parent"] is not None and node["parent"] not in known):
            what = (
                f"lacks {missing[0]!r}"
                if missing
                else f"comes before its parent {node['parent']!r}"
            )
            raise QvlibError(
                f"tree of task {tree.get('task')!r}: node {node.get('node')!r} {what}; each node "
                "needs node, parent (None for the root), action, visits, value, parents first"
            )
        known.add(node["node"])
    if not known or "task" not in tree:
        raise QvlibError("a tree record needs `task` and a non-empty list `nodes`")


def children_by_parent(tree: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The nodes below each node that has any, by its name, in the record's order.

    Raises:
        QvlibError: as ``check_tree``.
    """
    check_tree(tree)
    children: dict[str, list[Row]] = {}
    for node in tree["nodes"]:
        if node["parent"] is not None:
            children.setdefault(node["parent"], []).append(node)
    return children


def paths(tree: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The actions from the first state to each node, by its name; parents come first."""
    path: dict[str, tuple[str, ...]] = {}
    for node in tree["nodes"]:
        above = node["parent"]
        path[node["node"]] = () if above is None else (*path[above], node["action"])
    return path


def best_trajectory(tree: Mapping[str, Any]) -> tuple[float, tuple[str, ...]] | None:
    """(terminal reward, actions) of the best episode in a tree or its rollouts, if one ended.

    The highest reward; among equals the fewest actions, then what ended in the tree, by node, then
    ``best_actions``. A record without ``best_actions``, of an older search, has only what ended in
    the tree.
    """
    path = paths(tree)
    ended = [(node["reward"], path[node["node"]]) for node in tree["nodes"] if node["terminal"]]
    if tree.get("best_actions"):
        ended.append((tree["nodes"][0]["best_reward"], tuple(tree["best_actions"])))
    return min(ended, key=lambda end: (-end[0], len(end[1])), default=None)
