"""Turn finished trees into preference pairs of sibling actions (arXiv 2409.09345, section on preferences).

The builder reads tree records (see ``mcts.tree_record``), made by anyone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator

NODE_KEYS = ("node", "parent", "action", "visits", "value")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sibling actions after the same history: ``chosen`` has the higher value.

    path: the actions from the first state to where the two part; with the task it rebuilds the state.
    values are means in [-1, 1]; visits count the search's visits.
    """

    task: str
    node: str
    path: tuple[str, ...]
    chosen: str
    rejected: str
    chosen_value: float
    rejected_value: float
    chosen_visits: int
    rejected_visits: int

    @property
    def depth(self) -> int:
        return len(self.path)

    @property
    def margin(self) -> float:
        return self.chosen_value - self.rejected_value

    def record(self) -> dict[str, Any]:
        return asdict(self)


def build_pairs(
    trees: Iterable[Mapping[str, Any]],
    rule: str = "all_nodes",
    min_margin: float = 0.0,
    min_visits: int = 0,
) -> list[Pair]:
    """Pairs of siblings, in the order of the trees.

    rule: ``best_path`` pairs the best with the worst sibling along the best trajectory, as published;
    ``all_nodes`` does so at every node; ``all_siblings`` takes every two siblings of every node. Siblings with fewer than ``min_visits`` visits are not considered; pairs with a margin of
    0 or under ``min_margin`` are skipped.

    Raises:
        QvlibError: a tree lacks a key, or a node's parent.
    """
    pairs: list[Pair] = []
    for tree in trees:
        children = _children(tree)
        nodes = (
            _best_path(tree, children)
            if rule == "best_path"
            else (node["node"] for node in tree["nodes"])
        )
        path: dict[str, tuple[str, ...]] = {}
        for node in tree["nodes"]:  # parents come first
            path[node["node"]] = (
                () if node["parent"] is None else (*path[node["parent"]], node["action"])
            )
        for node in nodes:
            seen = [s for s in children.get(node, []) if s["visits"] >= max(min_visits, 1)]
            for best, worst in _ordered_two(seen) if rule == "all_siblings" else _extremes(seen):
                pair = Pair(
                    tree["task"],
                    node,
                    path[node],
                    best["action"],
                    worst["action"],
                    best["value"],
                    worst["value"],
                    best["visits"],
                    worst["visits"],
                )
                if pair.margin > 0 and pair.margin >= min_margin and pair.chosen != pair.rejected:
                    pairs.append(pair)
    return pairs


def _children(tree: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    children: dict[str, list[Mapping[str, Any]]] = {}
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
                f"tree of task {tree.get('task')!r}: node {node.get('node')!r} {what}; "
                "each node needs node, parent (None for the root), action, visits, value, parents first"
            )
        known.add(node["node"])
        if node["parent"] is not None:
            children.setdefault(node["parent"], []).append(node)
    if not known or "task" not in tree:
        raise QvlibError("a tree record needs `task` and a non-empty list `nodes`")
    return children


def _best_path(
    tree: Mapping[str, Any], children: Mapping[str, list[Mapping[str, Any]]]
) -> Iterator[str]:
    """Nodes of the best trajectory: from the root, always the visited child of the highest value."""
    node = tree["nodes"][0]["node"]
    while True:
        yield node
        visited = [child for child in children.get(node, ()) if child["visits"]]
        if not visited:
            return
        node = max(visited, key=lambda child: (child["value"], child["visits"]))["node"]


def _extremes(
    siblings: list[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The best and the worst."""
    if len(siblings) > 1:
        yield max(siblings, key=lambda s: s["value"]), min(siblings, key=lambda s: s["value"])


def _ordered_two(
    siblings: list[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every two, the better first."""
    for one, other in combinations(siblings, 2):
        yield (one, other) if one["value"] >= other["value"] else (other, one)


def compared(
    trees: Iterable[Mapping[str, Any]], min_margin: float = 0.0, min_visits: int = 0
) -> dict[str, int]:
    """``states`` in which the trees compare actions: at least two siblings have ``min_visits`` visits (and one at all).

    ``ties`` are those of them in which best and worst are less than ``min_margin`` apart, or equal: they make no pair.
    """
    found = {"states": 0, "ties": 0}
    for tree in trees:
        for siblings in _children(tree).values():
            values = [s["value"] for s in siblings if s["visits"] >= max(min_visits, 1)]
            if len(values) > 1:
                margin = max(values) - min(values)
                found["states"] += 1
                found["ties"] += margin < min_margin or margin <= 0
    return found


def kind(action: str) -> str:
    """The verb of an action: what stands before its bracket, or its first word."""
    words = action.partition("[")[0].split()
    return words[0] if words else ""


def hold_out(pairs: Iterable[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training pairs, held-out pairs), split by task."""
    train: list[Pair] = []
    held: list[Pair] = []
    for pair in pairs:
        (held if generator(seed, pair.task, "hold-out").random() < share else train).append(pair)
    return train, held


def shuffle_winners(pairs: Iterable[Pair], seed: int, shuffle: int = 0) -> list[Pair]:
    """The control: the same pairs, each with its winner drawn by a coin.

    Shuffle 2i + 1 turns every coin of shuffle 2i. With few pairs of a kind (buying against choosing an option) a
    shuffle happens to favour one side, and so a policy; of two opposite shuffles both sides are favoured once.
    """

    def swap(p: Pair) -> Pair:
        return Pair(
            p.task,
            p.node,
            p.path,
            p.rejected,
            p.chosen,
            p.rejected_value,
            p.chosen_value,
            p.rejected_visits,
            p.chosen_visits,
        )

    found: list[Pair] = []
    count: Counter[tuple[str, str]] = Counter()
    for p in pairs:
        again = (
            (count[p.task, p.node],) if count[p.task, p.node] else ()
        )  # further pairs of a node have their own coins
        heads = generator(seed, p.task, p.node, "shuffle", shuffle // 2, *again).random() < 0.5
        found.append(swap(p) if heads ^ (shuffle % 2 == 1) else p)
        count[p.task, p.node] += 1
    return found


def accuracy(q_chosen: np.ndarray, q_rejected: np.ndarray) -> float:
    """Share of pairs whose chosen action has the higher Q; a tie counts one half."""
    return (
        float(np.mean((q_chosen > q_rejected) + 0.5 * (q_chosen == q_rejected)))
        if len(q_chosen)
        else float("nan")
    )
