"""The baseline RFT: the agent fine-tuned on the best episodes of its own search trees.

Rejection-sampling fine-tuning, as in the paper's table; the fine-tuning is that of a warm start.
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


def _player(cast: Cast) -> Player:
    return Player(cast.sampler("rft"), episode)


def _active(params: Any) -> bool:
    return params.rft.rft


RFT = arm(
    "rft",
    NO_Q,
    "one sampled action of the agent fine-tuned on the best episodes of its own trees (RFT)",
    _player,
    needs=("rft",),
    settings=RftSettings,
    active=_active,
    sampled="",
)
