"""What steps of a tree are worth: backups of its leaves.

All read tree records (``trees.tree_record``). Q(s_t, a_t) = V(s_{t+1}): the value of a node is that
of the action that leads to it. A leaf is worth its ``value``, the mean of what was found from there
on; what is a step further away counts ``discount`` times as much where it is positive, as in
``mcts.backup``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qvlib.core.trees import Row, children_by_parent, paths

Values = Mapping[str, float]
"""Node -> value, of visited nodes."""


@dataclass(frozen=True, slots=True)
class Siblings:
    """The visited actions of one state: ``path`` leads to it from the first state of ``task``.

    values, visits: one an action, in the order of the record; values in [-1, 1]. samples: how often
    the policy drew it when its state was expanded; 1 where a record does not say.
    """

    task: str
    node: str
    path: tuple[str, ...]
    nodes: tuple[str, ...]
    actions: tuple[str, ...]
    values: tuple[float, ...]
    visits: tuple[int, ...]
    samples: tuple[int, ...]


def siblings(tree: Mapping[str, Any], values: Values) -> Iterator[Siblings]:
    """The visited children of every node that has any, with ``values`` of ``backed_up``.

    Raises:
        QvlibError: as ``check_tree``.
    """
    path = paths(tree)
    for parent, children in visited_children(tree).items():
        yield Siblings(
            tree["task"],
            parent,
            path[parent],
            tuple(child["node"] for child in children),
            tuple(child["action"] for child in children),
            tuple(float(values[child["node"]]) for child in children),
            tuple(int(child["visits"]) for child in children),
            tuple(int(child.get("samples") or 1) for child in children),
        )


def backed_up(
    tree: Mapping[str, Any],
    rule: Literal["mean", "max", "uniform"] = "mean",
    discount: float = 1.0,
    sweeps: int = 0,
) -> dict[str, float]:
    """The value of each visited node.

    mean: the search's own, a running mean over its visits (AgentRM, arXiv 2502.18407).
    max: of a leaf its own, above it that of the best child (QLASS, arXiv 2502.02584).
    uniform: above a leaf the mean of the children, as if actions were drawn evenly (ROVER, arXiv
    2509.24981); ``sweeps`` are the steps that take the best child first, k - 1 of the k of the
    Effective Horizon (arXiv 2304.09853).

    Raises:
        QvlibError: as ``check_tree``.
    """
    children = visited_children(tree)
    if rule == "mean":
        return {row["node"]: float(row["value"]) for row in tree["nodes"] if row["visits"]}
    known: dict[str, dict[int, float]] = {}

    def far(value: float) -> float:
        return value * discount if value > 0 else value

    for row in reversed(tree["nodes"]):  # children come after their parents
        below = [known[child["node"]] for child in children.get(row["node"], ())]
        if not below:
            levels = dict.fromkeys(range(sweeps + 1), float(row["value"]))
        elif rule == "max":
            levels = {sweeps: max(far(child[sweeps]) for child in below)}
        else:
            levels = {0: sum(far(child[0]) for child in below) / len(below)} | {
                k: max(far(child[k - 1]) for child in below) for k in range(1, sweeps + 1)
            }
        known[row["node"]] = levels
    return {row["node"]: known[row["node"]][sweeps] for row in tree["nodes"] if row["visits"]}


def found(tree: Mapping[str, Any]) -> dict[str, float]:
    """What each visited node ended with: its reward where the episode ends there, else its value.

    Of a node without visited children that is the mean of what was found from there on.
    """
    return {
        row["node"]: float(row["reward"] if row.get("terminal") else row["value"])
        for row in tree["nodes"]
        if row["visits"]
    }


def outcomes(tree: Mapping[str, Any]) -> dict[str, float]:
    """As ``found``, but undiscounted: the reward of the episode that was played on from a leaf.

    Of a leaf that was visited once that is its ``best_reward``, unless it found nothing, or a
    penalty. Of more visits, and where records do not tell it, the mean value stands.
    """
    known = found(tree)
    parents = {row["parent"] for row in tree["nodes"]}
    for row in tree["nodes"]:
        node, played_on = row["node"], row["visits"] == 1 and not row.get("terminal")
        if played_on and node not in parents and known[node] > 0 and "best_reward" in row:
            known[node] = float(row["best_reward"])
    return known


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The actions from the first state of ``task`` to an end.

    value: what it ended with (``outcomes``), in [-1, 1]. visits: how often it was taken.
    """

    task: str
    actions: tuple[str, ...]
    value: float
    visits: int


def trajectories(tree: Mapping[str, Any], ends: Values | None = None) -> Iterator[Trajectory]:
    """The way to every visited node that has no visited children.

    ends: what each ended with; None = ``outcomes``.

    Raises:
        QvlibError: as ``check_tree``.
    """
    inner, path = visited_children(tree), paths(tree)
    value = outcomes(tree) if ends is None else ends
    for row in tree["nodes"]:
        node = row["node"]
        if row["visits"] and node not in inner and path[node]:
            yield Trajectory(tree["task"], path[node], value[node], int(row["visits"]))


def visited_children(tree: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The visited children of each node that has any, parents first."""
    visited = {
        parent: [child for child in children if child["visits"]]
        for parent, children in children_by_parent(tree).items()
    }
    return {parent: children for parent, children in visited.items() if children}


By = Literal["visits", "samples", "even"]
"""How the value of a state weighs its actions: as the search went, as drawn, or alike."""


def weigher(by: By) -> Callable[[Row], float]:
    """The weight of a node's row, as ``shares`` has it."""
    weights: dict[str, Callable[[Row], float]] = {
        "visits": lambda row: row["visits"],
        "samples": lambda row: row.get("samples") or 1,
    }
    return weights.get(by, lambda row: 1.0)


def shares(group: Siblings, by: By) -> tuple[float, ...]:
    """Of 1, how often each action is taken: as the search went, as the policy drew, or alike."""
    counts = {"visits": group.visits, "samples": group.samples}.get(by, (1,) * len(group.nodes))
    return tuple(count / sum(counts) for count in counts)


def advantages(group: Siblings) -> tuple[float, ...]:
    """The values less their mean over the siblings, so that states are not compared."""
    mean = sum(group.values) / len(group.values)
    return tuple(value - mean for value in group.values)
