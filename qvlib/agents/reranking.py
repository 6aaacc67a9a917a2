"""Arms that execute the action of the highest Q: the method, its control, and its other uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from qvlib.agents.arm import CONTROL, NO_Q, OTHER, RERANKED, Arm, Cast, Player, arm
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import episode
from qvlib.core.reranker import Reranked
from qvlib.core.types import Agent, QModel
from qvlib.estimators import estimator_of


class ControlOfTenSettings(Settings):
    """How much of the null is also played with ten candidates."""

    stage: ClassVar[str | None] = "episodes/control_q_n10"

    control_n10_shuffles: int = setting(
        2, "of the controls, the most that also choose among ten", ge=1, le=1000
    )


def best(cast: Cast, agent: Agent, q_model: QModel, n: int) -> Reranked:
    """The agent reranked as the run says (arXiv 2409.09345, section 5)."""
    how = cast.params.evaluation
    return Reranked(agent, q_model, n, how.rerank_temperature, how.prior_weight)


def _reranked(n: int) -> Callable[[Cast], Player]:
    def player(cast: Cast) -> Player:
        play = partial(episode, trace=True) if n == 5 else episode  # candidates, for notebook 05
        return Player(best(cast, cast.sampler(), cast.q_model(), n), play)

    return player


def _control(name: str, n: int) -> Callable[[Cast], Mapping[str, Player]]:
    def players(cast: Cast) -> Mapping[str, Player]:
        return {
            f"{name}/{k}": Player(best(cast, cast.sampler(), cast.control(k), n), episode)
            for k in range(_shuffles(n)(cast.params))
        }

    return players


def _tuned(cast: Cast) -> Player:
    return Player(cast.sampler("q_model"), episode)


def _other_sample(cast: Cast) -> Player:
    return Player(cast.sampler("other_agent"), episode)


def _other_reranked(cast: Cast) -> Player:
    return Player(best(cast, cast.sampler("other_agent"), cast.q_model(), 5), episode)


def has_other(params: Any) -> bool:
    """Whether the run has a second agent."""
    return params.other_agent.other_demonstrations > 0


def is_policy(params: Any) -> bool:
    """Whether the Q model is a tuned model that can itself be sampled."""
    return estimator_of(params.q_model.estimator).policy


def _shuffles(n: int) -> Callable[[Any], int]:
    def count(params: Any) -> int:
        every = params.q_model.control_shuffles
        return every if n == 5 else min(every, params.control_q_n10.control_n10_shuffles)

    return count


def _q(n: int, words: str) -> Arm:
    return arm(
        f"q_n{n}",
        RERANKED,
        f"of {words} sampled actions the one with the highest Q",
        _reranked(n),
        needs=("q_model",),
        decided_by=("rerank",),
    )


def _shuffled(n: int) -> Arm:
    return Arm(
        f"control_q_n{n}",
        CONTROL,
        f"as q_n{n}, with Q models trained on shuffled labels",
        _control(f"control_q_n{n}", n),
        needs=("control",),
        decided_by=("rerank",),
        settings=ControlOfTenSettings if n == 10 else None,
        variants=_shuffles(n),
    )


Q_N5, Q_N10 = _q(5, "five"), _q(10, "ten")
CONTROL_N5, CONTROL_N10 = _shuffled(5), _shuffled(10)
TUNED_POLICY = arm(
    "tuned_policy",
    OTHER,
    "one sampled action of the tuned model itself",
    _tuned,
    needs=("q_model",),
    active=is_policy,
    sampled="",
)
OTHER_SAMPLE = arm(
    "other_agent_sample",
    NO_Q,
    "one sampled action of a second agent",
    _other_sample,
    needs=("other_agent",),
    active=has_other,
    sampled="other_agent",
)
OTHER_Q_N5 = arm(
    "other_agent_q_n5",
    RERANKED,
    "of five sampled actions of the second agent the one with the highest Q of the first's model",
    _other_reranked,
    needs=("other_agent", "q_model"),
    decided_by=("rerank",),
    active=has_other,
    against="other_agent_sample",
    sampled="other_agent",
)
