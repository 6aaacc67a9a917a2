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
    """Raise QvlibError unless a record is a tree: a task, and nodes with ``NODE_KEYS``.

    The line names the task, the node and what is wrong with it.
    """
    task, nodes = (
        tree.get(key) if isinstance(tree, Mapping) else None for key in ("task", "nodes")
    )
    if not isinstance(task, str) or not isinstance(nodes, Sequence) or not nodes:
        raise QvlibError(
            f"tree of task {task!r:.40}: a record of a tree needs `task`, a text, and `nodes`, a "
            "list that is not empty"
        )
    known: set[str] = set()
    for node in nodes:
        wrong = _wrong(node, known) if isinstance(node, Mapping) else "is no mapping"
        if wrong:
            name = node.get("node") if isinstance(node, Mapping) else node
            raise QvlibError(f"tree of task {task!r:.40}: node {name!r:.40} {wrong}")
        known.add(node["node"])


def _wrong(node: Row, known: Container[str]) -> str:
    """What is wrong with a node after those that are known; "" where nothing is."""
    missing = [key for key in NODE_KEYS if key not in node]
    if missing:
        return f"lacks {missing[0]!r}; a node has {', '.join(NODE_KEYS)}"
    name, parent, action, visits, value = (node[key] for key in NODE_KEYS)
    named = isinstance(parent, str | int) and parent in known
    counted = isinstance(visits, Integral) and not isinstance(visits, bool) and int(visits) >= 0
    rules = {
        "node": (isinstance(name, str | int) and name not in known, "a name of its own"),
        "parent": (named or (parent is None and not known), "a node before it; None at the root"),
        "action": (parent is None or isinstance(action, str), "a text"),
        "visits": (counted, "a count"),
        "value": (is_value(value), "a mean of values in [-1, 1]"),
    }
    wrong = [key for key, (right, _) in rules.items() if not right]
    return f"has {wrong[0]} = {node[wrong[0]]!r:.40}, not {rules[wrong[0]][1]}" if wrong else ""


def is_value(value: Any) -> bool:
    """Whether it is a number in [-1, 1]."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return bool(number and -1 <= value <= 1)


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
