"""The baselines RFT and AgentEvol: the agent fine-tuned on its own best episodes.

Rejection-sampling fine-tuning, as in the paper's table: on the best episodes of the search trees;
the fine-tuning is that of a warm start. AgentEvol (arXiv 2406.04151) goes on in rounds: the model
of a round samples an episode of each task, and those that earn enough are learnt beside the first
ones, each time by the agent as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from qvlib.agents.arm import NO_Q, Cast, Player, arm
from qvlib.base.errors import QvlibError
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import episode
from qvlib.core.trees import best_trajectory


class RftSettings(Settings):
    """Rejection-sampling fine-tuning."""

    stage: ClassVar[str | None] = "rft"

    rft: bool = setting(
        False, "also play the arm rft: the agent fine-tuned on the best episodes of its own trees"
    )
    rft_rounds: int = setting(
        1,
        "rounds of RFT; more is AgentEvol (its script: 2): the agent is tuned again, also on "
        "episodes that the model of the round before samples itself",
        option=True,
        ge=1,
        le=20,
    )
    rft_min_reward: float = setting(
        0.5,
        "least terminal reward of an episode that RFT learns from; 1 = successes alone",
        ge=0,
        le=1,
    )
    rft_epochs: int = setting(3, "epochs of RFT", ge=1)
    rft_lr: float = setting(
        2.0e-4, "peak learning rate of RFT, linear to 0; batch and rank as in a warm start", gt=0
    )


def best_episodes(trees: Sequence[Mapping[str, Any]], min_reward: float) -> list[dict[str, Any]]:
    """The best episode of each tree with one of ``min_reward``: task, group, reward, actions.

    Raises:
        QvlibError: no tree has one.
    """
    best = [(tree, best_trajectory(tree)) for tree in trees]
    ended = [(tree, *trajectory) for tree, trajectory in best if trajectory is not None]
    if not ended:
        raise QvlibError(
            f"rft: no episode in {len(trees)} trees has ended; raise iterations, max_steps or "
            "train_tasks"
        )
    episodes = [
        {"task": tree["task"], "group": tree["group"], "reward": reward, "actions": list(actions)}
        for tree, reward, actions in ended
        if reward >= min_reward
    ]
    if not episodes:
        top = max(reward for _, reward, _ in ended)
        raise QvlibError(
            f"rft: the best episode in {len(trees)} trees has a reward of {top:.3f}, under "
            f"rft_min_reward = {min_reward:g}; lower it, or raise iterations or train_tasks"
        )
    return episodes


def with_sampled(
    best: Sequence[dict[str, Any]], sampled: Sequence[Mapping[str, Any]], min_reward: float
) -> list[dict[str, Any]]:
    """The trees' best episodes, then the sampled ones of ``min_reward`` that are not among them.

    What AgentEvol learns from in a round: D_m and D_s together.
    """
    known = {(record["task"], *record["actions"]) for record in best}
    return [*best] + [
        {name: record[name] for name in ("task", "group", "reward", "actions")}
        for record in sampled
        if record["done"]
        and record["reward"] >= min_reward
        and (record["task"], *record["actions"]) not in known
    ]


def _player(cast: Cast) -> Player:
    return Player(cast.sampler("rft"), episode)


RFT = arm(
    "rft",
    NO_Q,
    "one sampled action of the agent fine-tuned on the best episodes of its own trees (RFT)",
    _player,
    needs=("rft",),
    settings=RftSettings,
    active=lambda params: params.rft.rft and params.rft.rft_rounds == 1,
    sampled="",
)
AGENT_EVOL = arm(
    "agent_evol",
    NO_Q,
    "one sampled action of the agent fine-tuned in rounds on the best episodes of its trees and on "
    "the good ones that it samples itself (AgentEvol)",
    _player,
    needs=("rft",),
    active=lambda params: params.rft.rft and params.rft.rft_rounds > 1,
    sampled="",
)
