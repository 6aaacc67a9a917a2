"""The arm Best-of-N: whole episodes, the best of them as the environment judges. Head-room."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from qvlib.agents.arm import TRIED, Cast, Player, arm
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import best_episode


class BestOfNSettings(Settings):
    """Whole episodes."""

    stage: ClassVar[str | None] = "episodes/best_of_n"

    best_of: int = setting(
        0, "whole episodes of the arm best_of_n (paper's Best-of-N: 5); 0 = no such arm", ge=0
    )


def _player(cast: Cast) -> Player:
    return Player(cast.sampler(), partial(best_episode, trials=cast.params.best_of_n.best_of))


def _active(params: Any) -> bool:
    return params.best_of_n.best_of > 0


BEST_OF_N = arm(
    "best_of_n",
    TRIED,
    "whole episodes, the best of them as the environment judges: head-room, not an agent",
    _player,
    settings=BestOfNSettings,
    active=_active,
)
