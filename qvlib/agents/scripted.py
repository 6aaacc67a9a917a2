"""Arms that no model plays: who a small agent is cloned from, and what three lines of code earn."""

from __future__ import annotations

from typing import Any

from qvlib import environments
from qvlib.agents.arm import SCRIPTED, Cast, Player, arm
from qvlib.core.episodes import episode


def has_demonstrator(params: Any) -> bool:
    """Whether the world brings a scripted agent; one of an own environment is not asked."""
    return environments.world_of(params.world.environment).demonstrator is not None


def _has_script(params: Any) -> bool:
    return environments.world_of(params.world.environment).script is not None


def _demonstrator(cast: Cast) -> Player:
    return Player(cast.demonstrator(), episode)


def _script(cast: Cast) -> Player:
    return Player(cast.world.script(cast.environment), episode)


DEMONSTRATOR = arm(
    "demonstrator",
    SCRIPTED,
    "the world's scripted agent, which errs and which small agents are cloned from",
    _demonstrator,
    active=has_demonstrator,
    sampled="",
)
SCRIPT = arm(
    "script",
    SCRIPTED,
    "a short fixed script of the world, which may be told parts of the goal and compares nothing",
    _script,
    active=_has_script,
    sampled="",
)
SCRIPTS = (DEMONSTRATOR, SCRIPT)
