"""How a search may select a leaf beside UCT: ends but once, and as the published code does."""

from __future__ import annotations

import math
from collections.abc import Callable

from qvlib.core.mcts import Node, Select, uct

Score = Callable[[Node, Node, float], float]
"""(child, parent, exploration) -> how much it is worth selecting."""


def published_uct(child: Node, parent: Node, exploration: float) -> float:
    """UCT as the published code has it: the running mean is divided by the visits once more.

    Exploitation fades as 1 / N(child). An unvisited child of a negative value goes last.
    """
    if not child.visits:
        return math.inf if child.value >= 0 else child.value
    bonus = exploration * math.sqrt(math.log(parent.visits) / child.visits)
    return child.value / child.visits + bonus


def select_once(exploration: float, score: Score = uct) -> Select:
    """``uct_select`` among what is not ``finished``; where all is, the search ends."""

    def select(top: Node) -> Node | None:
        if finished(top):
            return None
        node = top
        while node.children:
            unfinished = [child for child in node.children if not finished(child)]
            node = max(unfinished, key=lambda child: score(child, node, exploration))
        return node

    return select


def finished(node: Node) -> bool:
    """Whether it is an end that was visited, or has nothing but such below."""
    if node.state.done:
        return node.visits > 0
    return bool(node.children) and all(map(finished, node.children))


def published_select(exploration: float, score: Score = published_uct) -> Select:
    """Selection of the published code: no end is selected, except one with reward 1, always.

    A node whose children have all ended is deleted from the tree. At the root, where that code
    would look for a leaf for ever, the search ends.
    """

    def select(top: Node) -> Node | None:
        node = top
        while node.children:
            open_children = [child for child in node.children if not child.state.done]
            if not open_children:
                if node.parent is None:
                    return None
                siblings = node.parent.children
                node.parent.children = [child for child in siblings if child is not node]
                node = node.parent
                continue
            ended = (child for child in node.children if child.state.done)
            success = next((child for child in ended if child.state.reward >= 1), None)
            if success is not None:
                return success
            node = max(open_children, key=lambda child: score(child, node, exploration))
        return node

    return select
