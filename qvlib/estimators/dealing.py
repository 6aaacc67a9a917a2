"""The control of estimators: trees in which what actions led to is dealt anew among siblings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from qvlib.base.seeding import generator
from qvlib.core.step_values import Values, backed_up, visited_children
from qvlib.core.trees import Row


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
    children, known = visited_children(tree), dict(ends)
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
    for parent, children in visited_children(tree).items():
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
