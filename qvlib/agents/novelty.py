"""Selection that is drawn to pages seen little: UCT with a bonus that counts pages, not nodes.

So GUI-Bee explores (arXiv 2501.13896): what leads to a screen that its graph does not hold yet is
worth more. The bonus is that of count-based exploration, w / sqrt(N) (arXiv 1606.01868). Seen is
what this tree and the trees of earlier rounds have visited, so that neither the order of tasks nor
the number of workers changes a tree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qvlib.agents.search_rules import Score
from qvlib.core.mcts import Node, Select, uct

NONE_SEEN: Mapping[str, int] = {}


def page(observation: str, instruction: str) -> str:
    """What is counted: an observation without the instruction, which pages of a task may repeat."""
    return observation.replace(instruction, "")


def pages_seen(trees: Iterable[Mapping[str, Any]]) -> Mapping[str, int]:
    """Page -> visits of all its nodes in these tree records; ends are no pages."""
    seen: Counter[str] = Counter()
    for tree in trees:
        for node in tree["nodes"]:
            if not node["terminal"]:
                seen[page(node["observation"], tree["instruction"])] += node["visits"]
    return seen


def novel_select(
    rule: Callable[[float, Score], Select],
    exploration: float,
    weight: float,
    seen: Mapping[str, int] = NONE_SEEN,
) -> Select:
    """``rule`` with UCT + ``weight`` / sqrt(1 + N), N the visits of the child's page anywhere.

    Among siblings a child that was not visited goes first, as in UCT, unless its page was seen:
    then it counts as visited once, with the value of an unvisited node. Ends are never seen: what
    they are worth depends on the way there.

    seen: visits of pages in earlier rounds, added to those in the tree.
    """

    def select(top: Node) -> Node | None:
        visits = _pages_of(top)

        def score(child: Node, parent: Node, c: float) -> float:
            known = "" if child.state.done else _page(child)
            n = 0 if child.state.done else visits[known] + seen.get(known, 0)
            bonus = weight / math.sqrt(1 + n)
            if child.visits or not n:
                return uct(child, parent, c) + bonus
            return child.value + c * math.sqrt(math.log(parent.visits)) + bonus

        return rule(exploration, score)(top)

    return select


def _pages_of(node: Node) -> Counter[str]:
    """Page -> visits, in the whole tree of a node."""
    root = node
    while root.parent is not None:
        root = root.parent
    visits: Counter[str] = Counter()
    for each in root.walk():
        if not each.state.done:
            visits[_page(each)] += each.visits
    return visits


def _page(node: Node) -> str:
    return page(node.state.observation, node.state.task.instruction)
