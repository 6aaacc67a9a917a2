"""The arms of an evaluation, in the order of the tables: the one list that all read.

A new arm is a file that makes an ``Arm`` and a line here. From outside the package the parameter
``extra_arms`` names it, ``module:ARM``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace

from qvlib.agents import (
    beam,
    best_first,
    best_of_n,
    eto,
    lats,
    oracle,
    reading,
    reflexion,
    reranking,
    rft,
    sampling,
    saycan,
    scripted,
    search,
    self_consistency,
)
from qvlib.agents.arm import KINDS, Arm, Player
from qvlib.base.errors import QvlibError
from qvlib.base.imports import attribute, module

ARMS: tuple[Arm, ...] = (
    sampling.SAMPLE,
    sampling.GREEDY,
    sampling.RANDOM_N5,
    sampling.LIKELY_N5,
    sampling.LIKELY_N10,
    self_consistency.SELF_CONSISTENCY_N5,
    rft.RFT,
    rft.AGENT_EVOL,
    eto.ETO,
    scripted.DEMONSTRATOR,
    scripted.SCRIPT,
    reranking.Q_N5,
    reranking.Q_N10,
    saycan.SAYCAN_N5,
    reading.FOREIGN_N5,
    reading.FOREIGN_N10,
    reading.KIND_ONLY_N5,
    reading.KIND_ONLY_N10,
    reading.WITHIN_KIND_N5,
    reading.WITHIN_KIND_N10,
    oracle.ORACLE_N5,
    oracle.ORACLE_N10,
    reranking.TUNED_POLICY,
    search.SEARCH,
    best_of_n.BEST_OF_N,
    beam.BEAM,
    best_first.BEST_FIRST,
    lats.LATS,
    reflexion.REFLEXION,
    reflexion.REFLEXION_Q,
    reranking.OTHER_SAMPLE,
    reranking.OTHER_Q_N5,
    reading.OTHER_FOREIGN_N5,
    reranking.CONTROL_N5,
    reranking.CONTROL_N10,
)
BASE, GREEDY, SEARCH, MAIN = "sample", "greedy", "search", "q_n5"
"""The arms that sentences compare: one sample, greedy decoding, search, the method."""

FORMER = {"mcts": "search"}
"""Names of arms in older results -> what they are called now."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,59}")


@functools.cache
def arms_of(extra: Sequence[str] = ()) -> tuple[Arm, ...]:
    """The list, and the arms of one's own that are named ``module:ARM``, each after its kind.

    Raises:
        QvlibError: no such module, it has no such arm, its name is none of a folder, it is of no
            known kind, or two arms have the same name.
    """
    arms = list(ARMS)
    for name in extra:
        value = attribute(name, "extra_arms")
        if not isinstance(value, Arm):
            raise QvlibError(f"extra_arms: {name!r} is no qvlib.agents.arm.Arm; make one there")
        if not isinstance(value.name, str) or not _NAME.fullmatch(value.name):
            raise QvlibError(
                f"extra_arms: {name!r} is called {value.name!r:.60}, which names no folder; give "
                "up to 60 letters, digits, '_', '-' and '.'"
            )
        if value.kind not in KINDS:
            raise QvlibError(
                f"extra_arms: arm {value.name!r} is of kind {value.kind!r:.60}; give one of "
                f"{', '.join(map(repr, KINDS))}"
            )
        own = replace(value, origin=name, sha256=module(name, "extra_arms")[1])
        arms.insert(_after(arms, value), own)
    names = [each.name for each in arms]
    alike = [name.lower() for name in names]  # some disks know no capitals
    for name in names:
        if alike.count(name.lower()) > 1:
            raise QvlibError(f"extra_arms: two arms are called {name!r}; rename one")
    return tuple(arms)


def _after(arms: Sequence[Arm], own: Arm) -> int:
    """The place of an arm of one's own: behind the last of its kind, and of its agent if it can."""
    kin = [i for i, each in enumerate(arms) if each.kind == own.kind]
    second = "other_agent" in own.needs
    near = [i for i in kin if ("other_agent" in arms[i].needs) == second]
    return max(near or kin) + 1


__all__ = ["ARMS", "BASE", "FORMER", "GREEDY", "MAIN", "SEARCH", "Arm", "Player", "arms_of"]
