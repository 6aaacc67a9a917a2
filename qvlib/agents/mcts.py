"""The arm that searches with the environment at test time: it may undo, so it is no agent."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from qvlib.agents.arm import OTHER, Cast, Player, arm
from qvlib.agents.search_rules import published_select, published_uct, select_once
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import tree_episode
from qvlib.core.mcts import SearchConfig, Select, search, uct, uct_select
from qvlib.core.types import Environment, Job, Task


class MctsSettings(Settings):
    """Search at test time."""

    stage: ClassVar[str | None] = "episodes/mcts"

    mcts_iterations: int = setting(10, "iterations of search at test time", ge=1)


def search_config(settings: Any, iterations: int | None = None) -> SearchConfig:
    """The search that the settings describe, with another number of iterations where given."""
    config = {f.name: getattr(settings, f.name) for f in fields(SearchConfig)}
    return SearchConfig(**config | ({"iterations": iterations} if iterations else {}))


def selection(settings: Any) -> Select:
    """The rule by which it selects a leaf."""
    score = {"mean": uct, "published_code": published_uct}[settings.uct]
    rules = {"again": uct_select, "once": select_once, "published_code": published_select}
    return rules[settings.ended_leaves](settings.exploration, score)


def _player(cast: Cast) -> Player:
    settings = cast.params.search
    config = search_config(settings, cast.params.mcts.mcts_iterations)
    select = selection(settings)

    def play(environment: Environment, task: Task, seed: int) -> Job[dict[str, Any]]:
        return tree_episode((yield from search(environment, task, config, seed, select=select)))

    return Player(cast.sampler(), play)


MCTS = arm(
    "mcts",
    OTHER,
    "search with the environment at test time, best episode found: it may undo, so it is no agent",
    _player,
    decided_by=("search",),
    settings=MctsSettings,
)
