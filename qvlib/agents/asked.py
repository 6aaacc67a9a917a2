"""How much a Q model reads to value candidates, as a bound by what the agent read and wrote."""

from __future__ import annotations

from qvlib.agents.arm import Arm
from qvlib.agents.reading import KIND_ONLY_N5, KIND_ONLY_N10
from qvlib.agents.reranking import TUNED_POLICY
from qvlib.estimators import estimator_of

NEEDS = ("q_model", "control")
UNASKED = {arm.name for arm in (TUNED_POLICY, KIND_ONLY_N5, KIND_ONLY_N10)}
"""Arms that need a Q model and ask it for no value as they play."""


def models_asked(estimator: str, arm: Arm) -> int:
    """How many models an arm asks for the value of its candidates: two of a log-ratio, else one.

    None of an arm without Q. Each reads no more than the agent, that made the candidates, read and
    wrote for them: the same prompt once, and each distinct candidate. (A chat model that is asked
    for a value in words reads a prompt of its own, for which that is no bound.)
    """
    if arm.name in UNASKED or not set(NEEDS) & set(arm.needs):
        return 0
    return 2 if estimator_of(estimator).policy else 1
