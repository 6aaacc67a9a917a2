"""The arms of an evaluation, in the order of the tables: the one list that all read.

A new arm is a file that makes an ``Arm`` and a line here. From outside the package the parameter
``extra_arms`` names it, ``module:ARM``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from qvlib.agents import best_of_n, mcts, reranking, rft, sampling
from qvlib.agents.arm import Arm, Player
from qvlib.base.errors import QvlibError
from qvlib.base.imports import attribute, module

ARMS: tuple[Arm, ...] = (
    sampling.SAMPLE,
    sampling.GREEDY,
    sampling.RANDOM_N5,
    sampling.LIKELY_N5,
    rft.RFT,
    reranking.Q_N5,
    reranking.Q_N10,
    reranking.TUNED_POLICY,
    mcts.MCTS,
    best_of_n.BEST_OF_N,
    reranking.OTHER_SAMPLE,
    reranking.OTHER_Q_N5,
    reranking.CONTROL_N5,
    reranking.CONTROL_N10,
)
BASE, GREEDY, BOUND, MAIN = "sample", "greedy", "mcts", "q_n5"
"""The arms that sentences compare: one sample, greedy decoding, search, the method."""


@functools.cache
def arms_of(extra: Sequence[str] = ()) -> tuple[Arm, ...]:
    """The list, and the arms of one's own that are named ``module:ARM`` after it.

    Raises:
        QvlibError: no such module, it has no such arm, or two arms have the same name.
    """
    own = []
    for name in extra:
        value = attribute(name, "extra_arms")
        if not isinstance(value, Arm):
            raise QvlibError(f"extra_arms: {name!r} is no qvlib.agents.arm.Arm; make one there")
        own.append(replace(value, origin=name, sha256=module(name, "extra_arms")[1]))
    arms = (*ARMS, *own)
    names = [each.name for each in arms]
    for name in names:
        if names.count(name) > 1:
            raise QvlibError(f"extra_arms: two arms are called {name!r}; rename one")
    return arms


def rank(name: str) -> int:
    """Where an arm stands in tables; one of another run, unknown here, comes last."""
    names = [each.name for each in ARMS]
    return names.index(name) if name in names else len(names)


__all__ = ["ARMS", "BASE", "BOUND", "GREEDY", "MAIN", "Arm", "Player", "arms_of", "rank"]
