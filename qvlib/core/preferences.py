"""Turn finished trees into preference pairs of sibling actions.

arXiv 2409.09345, section on preferences. The builder reads tree records (``trees.tree_record``),
made by anyone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from operator import itemgetter
from typing import Any

import numpy as np

from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.core.trees import Row, children_by_parent, is_value, paths

RULES = ("best_path", "best_value_path", "all_nodes", "all_siblings")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sibling actions after the same history: ``chosen`` has the higher value.

    path: the actions from the first state to where the two part; with the task it rebuilds the
        state (``episodes.replay``).
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

    def swapped(self) -> Pair:
        """The same two actions, preferred the other way round."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            chosen_value=self.rejected_value,
            rejected_value=self.chosen_value,
            chosen_visits=self.rejected_visits,
            rejected_visits=self.chosen_visits,
        )


def build_pairs(
    trees: Iterable[Mapping[str, Any]],
    rule: str = "all_nodes",
    min_margin: float = 0.0,
    min_visits: int = 0,
) -> list[Pair]:
    """Pairs of siblings, in the order of the trees.

    rule: one of ``RULES``. ``best_path`` pairs the best with the worst sibling along the path to
    the node of the highest reward, as published; ``best_value_path`` along the visited children of
    highest value; ``all_nodes`` at every node; ``all_siblings`` takes every two siblings of every
    node. Siblings with fewer than ``min_visits`` visits are not considered. One that was never
    visited counts along ``best_path`` alone, with the value that its tree gives it (0 in ours).
    Pairs with a margin of 0 or under ``min_margin`` are skipped.

    Raises:
        QvlibError: an unknown rule; a tree that ``check_tree`` refuses; ``best_path`` of a tree
            whose nodes have no ``reward``.
    """
    if rule not in RULES:
        raise QvlibError(f"no rule of pairs is called {rule!r:.40}; there are {', '.join(RULES)}")
    pairs = (
        _pair(tree["task"], parent, path, better, worse)
        for tree in trees
        for parent, path, siblings in _compared_siblings(tree, rule, min_visits)
        for better, worse in (_every_two if rule == "all_siblings" else _extremes)(siblings)
    )
    return [p for p in pairs if p.margin > 0 and p.margin >= min_margin and p.chosen != p.rejected]


def least_visits(rule: str, min_visits: int) -> int:
    """The least visits of siblings that a rule compares: one, but along ``best_path``."""
    return min_visits if rule == "best_path" else max(min_visits, 1)


def _compared_siblings(
    tree: Mapping[str, Any], rule: str, min_visits: int
) -> Iterator[tuple[str, tuple[str, ...], list[Row]]]:
    """(parent, path to it, those of its children that count) of each node the rule looks at."""
    children, path = children_by_parent(tree), paths(tree)
    walk = {"best_path": _best_path, "best_value_path": _best_value_path}.get(rule)
    nodes = walk(tree, children) if walk else [node["node"] for node in tree["nodes"]]
    least = least_visits(rule, min_visits)
    for node in nodes:
        siblings = [s for s in children.get(node, ()) if s["visits"] >= least]
        if len(siblings) > 1:
            yield node, path[node], siblings


def _pair(task: str, node: str, path: tuple[str, ...], better: Row, worse: Row) -> Pair:
    return Pair(
        task,
        node,
        path,
        better["action"],
        worse["action"],
        better["value"],
        worse["value"],
        better["visits"],
        worse["visits"],
    )


def _best_path(tree: Mapping[str, Any], children: Mapping[str, Sequence[Row]]) -> list[str]:
    """The nodes from the root to the first node of the highest reward, that one left out."""
    rewards = [node.get("reward") for node in tree["nodes"]]
    if not all(map(is_value, rewards)):
        raise QvlibError(
            f"tree of task {tree['task']!r:.40}: pairs of best_path need the terminal `reward` of "
            "every node, 0 where nothing ends; or take best_value_path, all_nodes or all_siblings"
        )
    parents = {node["node"]: node["parent"] for node in tree["nodes"]}
    nodes, node = [], parents[tree["nodes"][rewards.index(max(rewards))]["node"]]
    while node is not None:
        nodes.append(node)
        node = parents[node]
    return nodes[::-1]


def _best_value_path(
    tree: Mapping[str, Any], children: Mapping[str, Sequence[Row]]
) -> Iterator[str]:
    """The nodes from the root on, always to the visited child of highest value."""
    node = tree["nodes"][0]["node"]
    while True:
        yield node
        visited = [child for child in children.get(node, ()) if child["visits"]]
        if not visited:
            return
        node = max(visited, key=lambda child: (child["value"], child["visits"]))["node"]


def _extremes(siblings: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """The best and the worst."""
    yield max(siblings, key=itemgetter("value")), min(siblings, key=itemgetter("value"))


def _every_two(siblings: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Every two, the better first."""
    for first, second in combinations(siblings, 2):
        yield (first, second) if first["value"] >= second["value"] else (second, first)


def compared(
    trees: Iterable[Mapping[str, Any]], min_margin: float = 0.0, min_visits: int = 0
) -> dict[str, int]:
    """``states`` in which the trees compare actions: two siblings or more have enough visits.

    Enough is ``min_visits``, and at least one. ``ties`` are the states in which best and worst are
    less than ``min_margin`` apart, or equal: they make no pair.
    """
    margins = [
        best["value"] - worst["value"]
        for tree in trees
        for _, _, siblings in _compared_siblings(tree, "all_nodes", min_visits)
        for best, worst in _extremes(siblings)
    ]
    ties = sum(margin < min_margin or margin <= 0 for margin in margins)
    return {"states": len(margins), "ties": ties}


def kind(action: str) -> str:
    """The verb of an action: what stands before its bracket, or its first word."""
    words = action.partition("[")[0].split()
    return words[0] if words else ""


def hold_out(pairs: Iterable[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training pairs, held-out pairs), split by task."""
    train: list[Pair] = []
    held: list[Pair] = []
    for pair in pairs:
        (held if is_held_out(pair.task, share, seed) else train).append(pair)
    return train, held


def is_held_out(task: str, share: float, seed: int) -> bool:
    """Is a task one of the ``share`` whose pairs no Q model is trained on?"""
    return bool(generator(seed, task, "hold-out").random() < share)


def shuffle_winners(pairs: Iterable[Pair], seed: int, shuffle: int = 0) -> list[Pair]:
    """The control: the same pairs, each with its winner drawn by a coin.

    Shuffles are independent. With few pairs of a kind (buying against choosing an option) one
    happens to favour one side, and so a policy: the null is how many of them gain, not their mean.
    """
    shuffled: list[Pair] = []
    seen: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        node = (pair.task, pair.node)
        again = (seen[node],) if seen[node] else ()  # further pairs of a node have own coins
        heads = generator(seed, *node, "shuffle", shuffle, *again).random() < 0.5
        shuffled.append(pair.swapped() if heads else pair)
        seen[node] += 1
    return shuffled


def accuracy(q_chosen: np.ndarray, q_rejected: np.ndarray) -> float:
    """Share of pairs whose chosen action has the higher Q; a tie counts one half, nan of none."""
    if not len(q_chosen):
        return float("nan")
    return float(np.mean((q_chosen > q_rejected) + 0.5 * (q_chosen == q_rejected)))
