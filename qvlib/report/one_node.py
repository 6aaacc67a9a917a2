"""One state of a search tree: its siblings, the pair they give, or why they give none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from qvlib.base import markup
from qvlib.core.preferences import Pair, build_pairs, least_visits
from qvlib.core.trees import Row, children_by_parent, paths


@dataclass(frozen=True)
class Siblings:
    """The actions that a search tried in one state, and what ``build_pairs`` made of them.

    path: the actions that lead there. pair: the pair of the widest margin, if any. why_not: the
    reason where there is none.
    """

    instruction: str
    path: tuple[str, ...]
    actions: Sequence[Row]
    pair: Pair | None = None
    why_not: str = ""

    def table(self) -> pd.DataFrame:
        """A row an action, the highest value first; what was never visited has none."""
        roles = {self.pair.chosen: "chosen", self.pair.rejected: "rejected"} if self.pair else {}
        ordered = sorted(self.actions, key=lambda a: (a["visits"] > 0, a["value"]), reverse=True)
        return pd.DataFrame(
            {
                "action": [markup.code(a["action"]) for a in ordered],
                "visits N": [a["visits"] for a in ordered],
                "value V": [f"{a['value']:.3f}" if a["visits"] else "" for a in ordered],
                "in the pair": [roles.get(a["action"], "") for a in ordered],
            }
        )

    def where(self) -> str:
        """The task and the actions so far, Markdown."""
        after = ", ".join(map(markup.code, self.path))
        where = f"After {after}:" if after else "In the first state:"
        return f"{markup.quote(self.instruction)}\n\n{where}"


def with_pair(trees: Iterable[Mapping[str, Any]], rule: Any) -> Siblings | None:
    """The siblings of the pair with the widest margin; the first of several.

    rule: the section ``pairs`` of the parameters.
    """
    best: tuple[Mapping[str, Any], Pair] | None = None
    for tree in trees:
        for pair in build_pairs([tree], rule.pairs, rule.min_margin, rule.min_visits):
            if best is None or pair.margin > best[1].margin:
                best = tree, pair
    if best is None:
        return None
    tree, pair = best
    return Siblings(_instruction(tree), pair.path, children_by_parent(tree)[pair.node], pair)


def without_pair(trees: Iterable[Mapping[str, Any]], rule: Any) -> Siblings | None:
    """Siblings that give no pair: a state of the most visits, one that compares two if it can be.

    rule: as for ``with_pair``. None where every state with siblings gives a pair.
    """
    best: tuple[tuple[bool, int], Siblings] | None = None
    for tree in trees:
        made = build_pairs([tree], rule.pairs, rule.min_margin, rule.min_visits)
        paired, path = {pair.node for pair in made}, paths(tree)
        for node, actions in children_by_parent(tree).items():
            if node in paired or len(actions) < 2:
                continue
            least = least_visits(rule.pairs, rule.min_visits)
            compared = sum(a["visits"] >= least for a in actions) > 1
            rank = compared, sum(a["visits"] for a in actions)
            if best is None or rank > best[0]:
                why_not = reason(actions, rule)
                siblings = Siblings(_instruction(tree), path[node], actions, why_not=why_not)
                best = rank, siblings
    return best[1] if best else None


def reason(actions: Sequence[Row], rule: Any) -> str:
    """Why these siblings give no pair by the rule."""
    least = least_visits(rule.pairs, rule.min_visits)
    values = [a["value"] for a in actions if a["visits"] >= least]
    if len(values) < 2:
        return (
            f"{len(values)} of {len(actions)} actions were visited as often as `min_visits` = "
            f"{rule.min_visits} asks, and once at least; a comparison needs two."
        )
    margin = max(values) - min(values)
    if margin <= 0:
        return f"All {len(values)} visited actions have the same value: a tie."
    if margin < rule.min_margin:
        return (
            f"The highest and the lowest value are {margin:.3f} apart, less than `min_margin` = "
            f"{rule.min_margin:g}."
        )
    where = "to the highest reward" if rule.pairs == "best_path" else "of the highest values"
    return f"The rule `{rule.pairs}` looks at the states on the path {where} alone."


def _instruction(tree: Mapping[str, Any]) -> str:
    return str(tree.get("instruction", tree["task"]))
