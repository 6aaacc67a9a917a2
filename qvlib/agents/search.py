"""The arm that searches with the environment at test time: it may undo, so it is no agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from qvlib.agents.arm import TRIED, Cast, Player, arm
from qvlib.agents.novelty import NONE_SEEN, novel_select
from qvlib.agents.search_rules import published_select, published_uct, select_once
from qvlib.core.episodes import tree_episode
from qvlib.core.mcts import SearchConfig, Select, Tree, search, uct, uct_select
from qvlib.core.preferences import build_pairs
from qvlib.core.trees import tree_record
from qvlib.core.types import Environment, Job, Task


def search_config(settings: Any, iterations: int | None = None) -> SearchConfig:
    """The search that the settings describe, with another number of iterations where given."""
    config = {f.name: getattr(settings, f.name) for f in fields(SearchConfig)}
    return SearchConfig(**config | ({"iterations": iterations} if iterations else {}))


def selection(settings: Any, seen: Mapping[str, int] = NONE_SEEN) -> Select:
    """The rule by which it selects a leaf; ``seen``: visits of pages in earlier rounds."""
    rules = {"again": uct_select, "once": select_once, "published_code": published_select}
    rule = rules[settings.ended_leaves]
    if settings.uct == "novelty":
        return novel_select(rule, settings.exploration, settings.novelty_weight, seen)
    score = {"mean": uct, "published_code": published_uct}[settings.uct]
    return rule(settings.exploration, score)


def _player(cast: Cast) -> Player:
    settings = cast.params.search
    config = search_config(settings, settings.search_iterations)
    select = selection(settings)

    def play(environment: Environment, task: Task, seed: int) -> Job[dict[str, Any]]:
        tree = yield from search(environment, task, config, seed, select=select)
        return tree_episode(tree) | {"pairs": siblings(tree, cast.params.pairs)}

    return Player(cast.sampler(), play)


def siblings(tree: Tree, rule: Any) -> list[dict[str, Any]]:
    """Every two siblings of a tree whose margin and visits a run's pairs must have, as records.

    rule: its ``min_margin`` and ``min_visits``. Of a test task they are pairs that no Q model was
    trained on.
    """
    found = build_pairs([tree_record(tree)], "all_siblings", rule.min_margin, rule.min_visits)
    records = (pair.record() for pair in found)
    return [{k: v for k, v in record.items() if k not in ("task", "node")} for record in records]


SEARCH = arm(
    "search",
    TRIED,
    "search with the environment, search_iterations iterations a task, best episode found: it may "
    "undo, so it is no agent",
    _player,
    decided_by=("search", "siblings"),
)
