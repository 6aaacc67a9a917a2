"""Arms without a Q model: the agent as it is, and what drawing more does by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qvlib.agents.arm import NO_Q, Cast, Player, arm
from qvlib.core.episodes import episode
from qvlib.core.reranker import Reranked
from qvlib.models.names import is_remote


def tells_log_probs(params: Any) -> bool:
    """Whether the agent tells log-probabilities that can be compared; servers do not."""
    return not is_remote(params.agent.agent)


def _sample(cast: Cast) -> Player:
    return Player(cast.sampler(), episode)


def _greedy(cast: Cast) -> Player:
    return Player(cast.sampler(greedy=True), episode)


def _random(cast: Cast) -> Player:
    return Player(Reranked(cast.sampler(), None, 5, temperature=1.0), episode)


def _likely(n: int) -> Callable[[Cast], Player]:
    return lambda cast: Player(Reranked(cast.sampler(), None, n, prior_weight=1.0), episode)


SAMPLE = arm("sample", NO_Q, "one sampled action: the agent as it is", _sample)
GREEDY = arm("greedy", NO_Q, "the most likely action (greedy decoding)", _greedy)
RANDOM_N5 = arm("random_n5", NO_Q, "of five sampled actions a random one", _random)
LIKELY_N5 = arm(
    "likely_n5", NO_Q, "of five sampled actions the likeliest", _likely(5), active=tells_log_probs
)
LIKELY_N10 = arm(
    "likely_n10", NO_Q, "of ten sampled actions the likeliest", _likely(10), active=tells_log_probs
)
