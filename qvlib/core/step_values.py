"""What steps of a tree are worth: backups of its leaves, and the control that deals them anew.

All read tree records (``trees.tree_record``). Q(s_t, a_t) = V(s_{t+1}): the value of a node is that
of the action that leads to it. A leaf is worth its ``value``, the mean of what was found from there
on; what is a step further away counts ``discount`` times as much where it is positive, as in
``mcts.backup``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qvlib.base.seeding import generator
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
    for parent, children in _visited_children(tree).items():
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
    children = _visited_children(tree)
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
    inner, path = _visited_children(tree), paths(tree)
    value = outcomes(tree) if ends is None else ends
    for row in tree["nodes"]:
        node = row["node"]
        if row["visits"] and node not in inner and path[node]:
            yield Trajectory(tree["task"], path[node], value[node], int(row["visits"]))


def dealt(tree: Mapping[str, Any], seed: int, shuffle: int = 0) -> dict[str, Any]:
    """The control: the same tree, in which what actions led to is dealt anew among siblings.

    Each of a state's visited actions gets the value of one of them, by a random permutation, and
    everything below it is moved by the difference. Were values dealt among siblings alone, the
    states below an action would still tell by their mean what it is worth. ``reward`` of an end
    moves along, cut to [0, 1]; ``best_reward`` is of the ends below, ``best_actions`` is gone.
    Values are cut to [-1, 1]. Shuffles are independent. Values by another rule than the mean are
    dealt by ``dealt_values``: the best of children that were moved still tells. What is backed up
    from ends by a rule of its own is dealt by ``dealt_ends``.
    """
    moved = _moves(tree, backed_up(tree), seed, shuffle)
    rows = [_moved(row, moved) for row in tree["nodes"]]
    best: dict[str, float] = {}
    for row in reversed(rows):
        seen = max(best.get(row["node"], 0.0), row["reward"] if row.get("terminal") else 0.0)
        row["best_reward"] = seen
        best[row["parent"]] = max(best.get(row["parent"], 0.0), seen)
    return {**tree, "nodes": rows, "best_actions": []}


def dealt_values(
    tree: Mapping[str, Any], values: Values, seed: int, shuffle: int = 0
) -> dict[str, float]:
    """The control of values by any rule: those of ``tree``, dealt and moved as in ``dealt``."""
    moved = _moves(tree, values, seed, shuffle)
    return {n: min(max(v + moved.get(n, 0.0), -1.0), 1.0) for n, v in values.items()}


def dealt_ends(
    tree: Mapping[str, Any],
    ends: Values,
    weight: Callable[[Row], float],
    discount: float,
    seed: int,
    shuffle: int = 0,
) -> dict[str, float]:
    """The control of what is backed up from ends alone, as by temporal differences.

    The value of a state is ``discount`` times the weighted mean of its actions', ``weight`` being
    that of a node's row. Those values are dealt as in ``dealt``, and all of a state's are moved
    alike, so far that their mean is what the state itself was dealt. Returns ``ends`` with what
    they are moved by, cut to [-1, 1].
    """
    children, known = _visited_children(tree), dict(ends)
    mean = {p: _weighted(rows, weight) for p, rows in children.items()}
    for parent in reversed(children):  # children come after their parents
        known[parent] = discount * mean[parent](known)
    moved: dict[str, float] = {}
    for parent, new in _deals(tree, known, seed, shuffle):
        rest = (known[parent] + moved.get(parent, 0.0)) / discount - mean[parent](new)
        moved |= {node: value + rest - known[node] for node, value in new.items()}
    return {n: min(max(v + moved.get(n, 0.0), -1.0), 1.0) for n, v in ends.items()}


def _weighted(rows: Sequence[Row], weight: Callable[[Row], float]) -> Callable[[Values], float]:
    """The weighted mean of some nodes' values."""
    weights = {row["node"]: weight(row) for row in rows}
    whole = sum(weights.values())
    return lambda values: sum(w * values[node] for node, w in weights.items()) / whole


def _deals(
    tree: Mapping[str, Any], values: Values, seed: int, shuffle: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Parent, and the values of its visited actions dealt anew, parents first."""
    for parent, children in _visited_children(tree).items():
        deal = generator(seed, tree["task"], parent, "deal", shuffle).permutation(len(children))
        each = zip(children, deal, strict=True)
        yield parent, {child["node"]: values[children[i]["node"]] for child, i in each}


def _moves(tree: Mapping[str, Any], values: Values, seed: int, shuffle: int) -> dict[str, float]:
    """What is added to the value of each visited node but the root."""
    moved: dict[str, float] = {}
    for parent, new in _deals(tree, values, seed, shuffle):
        above = moved.get(parent, 0.0)
        moved |= {node: above + (value - values[node]) for node, value in new.items()}
    return moved


def _moved(row: Row, moved: Mapping[str, float]) -> dict[str, Any]:
    by = moved.get(row["node"], 0.0)
    value = min(max(row["value"] + by, -1.0), 1.0)
    new = {**row, "value": value, "value_sum": value * row["visits"]} if row["visits"] else {**row}
    if row.get("terminal"):
        new["reward"] = min(max(row["reward"] + by, 0.0), 1.0)
    return new


def _visited_children(tree: Mapping[str, Any]) -> dict[str, list[Row]]:
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
