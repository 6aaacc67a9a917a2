"""The arm LATS: tree search at test time that a model's own judgement and lessons guide.

Language Agent Tree Search (arXiv 2310.04406) as its public code has it for WebShop: UCT with the
constant sqrt 2, n = 5 actions at an expansion, then a rollout from the new child that is valued
most. At each of its steps n actions are sampled and stepped, and the one valued most is followed,
or the first that ends. The end's reward is backed up. A chat model gives the values, asked once of
each child for a score from 1 to 10, and of up to three failed ends that differ a lesson, which
later prompts tell. Another model cannot be asked: the Q model values its children, among siblings
alone, and there are no lessons.

Not as there: leaves are selected and expanded as the run's settings of the search say (by default
the same c and n), as in the arm ``search``; prompts are ours; a failure has one lesson, written
once; an end counts its reward among its siblings; steps that run out back up ``timeout_value``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from qvlib.agents.arm import TRIED, Cast, Player, arm
from qvlib.agents.judging import Memory, judged
from qvlib.agents.prompted import ACT, Prompted, Reads, asking, writers
from qvlib.agents.reranking import best
from qvlib.agents.search import search_config, selection
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import tree_episode
from qvlib.core.mcts import Evaluate, Evaluation, Node, search
from qvlib.core.types import Cost, Environment, Job, Key, Request, Task, total


class LatsSettings(Settings):
    """Language Agent Tree Search."""

    stage: ClassVar[str | None] = "episodes/lats"

    lats_iterations: int = setting(
        0, "iterations a task of the arm lats (its code for WebShop: 30); 0 = no such arm", ge=0
    )


def rollout(environment: Environment, n: int, discount: float) -> Evaluate:
    """Evaluate a leaf by one episode, following the first of n proposals, or the first that ends.

    The value is as of ``qvlib.core.mcts.rollout``.
    """

    def evaluate(leaf: Node, key: Key) -> Job[Evaluation]:
        state, cost = leaf.state, Cost()
        while not state.done:
            if state.depth >= environment.max_steps:
                return Evaluation(environment.timeout_value, state, cost)
            proposals = yield Request(state, n, (*key[:2], f"{key[2]}/{state.depth}"))
            actions = dict.fromkeys(p.action for p in proposals)
            children = [environment.step(state, action) for action in actions]
            cost += total(p.cost for p in proposals)
            cost += Cost(proposals=len(proposals), env_steps=len(children))
            state = next((child for child in children if child.done), children[0])
        steps = state.depth - leaf.state.depth
        return Evaluation(state.reward * discount**steps, state, cost)

    return evaluate


def _player(cast: Cast) -> Player:
    settings, parts = cast.params.search, writers(cast)
    config = search_config(settings, cast.params.lats.lats_iterations)
    select = selection(settings)
    n = config.expand_n

    def play(environment: Environment, task: Task, seed: int) -> Job[dict[str, Any]]:
        evaluate = rollout(environment, n, config.discount)
        job = search(environment, task, config, seed, select=select, evaluate=evaluate)
        if parts:
            job = asking(job, partial(judged, environment, Memory()))
        return tree_episode((yield from job))

    if parts:
        return Player(Prompted({ACT: Reads(cast.sampler()), **parts}), play)
    return Player(best(cast, cast.sampler(), cast.q_model(), n), play)


def _active(params: Any) -> bool:
    return params.lats.lats_iterations > 0


LATS = arm(
    "lats",
    TRIED,
    "tree search in the environment whose rollouts follow a chat model's own judgement, with its "
    "lessons of failures, or Q; the best episode found",
    _player,
    needs=("q_model",),
    decided_by=("search", "rerank"),
    settings=LatsSettings,
    active=_active,
)
