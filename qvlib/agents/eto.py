"""The baseline ETO (arXiv 2403.02502): the agent tuned on its better against its worse episodes.

The loss is trajectory-level DPO (``qvlib.estimators.trajectory_dpo``) on the best against the worst
episode of each search tree; what is tuned then acts by itself, one sample a step, and reranks
nothing. The published form pairs an expert's episode with the agent's failures, in rounds;
here both are the search's own, of the same trees as the preference pairs, in one round.
"""

from __future__ import annotations

from typing import Any, ClassVar

from qvlib.agents.arm import NO_Q, Cast, Player, arm
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import episode

ESTIMATOR = "trajectory_dpo"
"""The estimator whose policy is played."""
STAGE = "eto"
"""The stage that makes it."""


class EtoSettings(Settings):
    """Trajectory-level DPO of the agent."""

    stage: ClassVar[str | None] = STAGE

    eto: bool = setting(
        False, "also play the arm eto: the agent tuned on its trees' best against worst episodes"
    )
    eto_beta: float = setting(0.1, "beta of its DPO (ETO: 0.1, after its first round 0.5)", gt=0)
    eto_lr: float = setting(1.0e-5, "its peak learning rate (ours)", gt=0)
    eto_epochs: int = setting(3, "its epochs (ours)", ge=1)
    eto_batch: int = setting(8, "pairs of episodes a batch", ge=1)


def of_estimator(settings: EtoSettings) -> dict[str, Any]:
    """What ``ESTIMATOR`` is set to, by the names of its parameters."""
    return {
        "beta": settings.eto_beta,
        "dpo_lr": settings.eto_lr,
        "dpo_epochs": settings.eto_epochs,
        "dpo_batch": settings.eto_batch,
    }


def _player(cast: Cast) -> Player:
    return Player(cast.sampler(STAGE), episode)


ETO = arm(
    "eto",
    NO_Q,
    "one sampled action of the agent tuned on the best against the worst episodes of its own trees "
    "(ETO)",
    _player,
    needs=(STAGE,),
    settings=EtoSettings,
    active=lambda params: params.eto.eto,
    sampled="",
)
