"""Search trees as plain records, made by ``search`` or by anyone: write, check and read them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from numbers import Integral, Real
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
    """Whether a record is a tree: a task, and nodes with ``NODE_KEYS``, parents first.

    Raises:
        QvlibError: it is not; the line names the task, the node and what is wrong with it.
    """
    if not isinstance(tree, Mapping):
        raise QvlibError(f"a tree record is a mapping with `task` and `nodes`, not {tree!r:.60}")
    task, nodes = tree.get("task"), tree.get("nodes")
    if not isinstance(task, str) or not isinstance(nodes, Sequence) or not nodes:
        raise QvlibError(
            f"tree of task {task!r:.40}: a tree record needs `task`, a text, and a non-empty list "
            "`nodes`"
        )
    known: set[str] = set()
    for node in nodes:
        if wrong := _wrong(node, known):
            name = node.get("node") if isinstance(node, Mapping) else node
            raise QvlibError(
                f"tree of task {task!r:.40}: node {name!r:.40} {wrong}; a node has node, parent "
                "(None for the root alone), action, visits and value, and comes after its parent"
            )
        known.add(node["node"])


def _wrong(node: Any, known: Container[str]) -> str:
    """What is wrong with a node after those that are known; "" where nothing is."""
    if not isinstance(node, Mapping):
        return "is no mapping"
    for key in NODE_KEYS:
        if key not in node:
            return f"lacks {key!r}"
    name, parent, visits, value = (node[key] for key in ("node", "parent", "visits", "value"))
    if not isinstance(name, str | int) or name in known:
        return "comes twice" if isinstance(name, str | int) else "has no text as its name"
    if parent is None and known:
        return "is a second root"
    if parent is not None and (not isinstance(parent, str | int) or parent not in known):
        return f"comes before its parent {parent!r:.40}"
    if parent is not None and not isinstance(node["action"], str):
        return f"has the action {node['action']!r:.40}, no text"
    if not isinstance(visits, Integral) or isinstance(visits, bool) or visits < 0:
        return f"has visits = {visits!r:.40}, no count"
    if not is_value(value):
        return f"has value = {value!r:.40}, no mean of values in [-1, 1]"
    return ""


def is_value(value: Any) -> bool:
    """Whether it is a number in [-1, 1]."""
    return isinstance(value, Real) and not isinstance(value, bool) and -1 <= float(value) <= 1


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
