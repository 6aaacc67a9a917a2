"""Ways to estimate the value of a step, each fitted to the same trees.

An estimator is one file with a record ``ESTIMATOR`` and one line in the list here; one that lies
outside the package is named ``module:ATTRIBUTE``. Files of estimators are light: what needs torch
is imported when it is fitted or loaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.imports import attribute, module
from qvlib.estimators.estimator import Card, Estimator, Fitted, OpenModel, Problem

ESTIMATORS: dict[str, str] = {
    "step_dpo": "qvlib.estimators.step_dpo:ESTIMATOR",
    "trajectory_dpo": "qvlib.estimators.trajectory_dpo:ESTIMATOR",
    "sweet_rl": "qvlib.estimators.sweet_rl:ESTIMATOR",
    "vpo": "qvlib.estimators.vpo:ESTIMATOR",
    "rebel": "qvlib.estimators.rebel:ESTIMATOR",
    "llm_value": "qvlib.estimators.llm_value:ESTIMATOR",
    "agentrm": "qvlib.estimators.agentrm:ESTIMATOR",
    "qlass": "qvlib.estimators.qlass:ESTIMATOR",
    "digi_q": "qvlib.estimators.digi_q:ESTIMATOR",
    "archer": "qvlib.estimators.archer:ESTIMATOR",
    "oreo": "qvlib.estimators.oreo:ESTIMATOR",
    "rover": "qvlib.estimators.rover:ESTIMATOR",
    "hl_gauss": "qvlib.estimators.hl_gauss:ESTIMATOR",
    "tvm": "qvlib.estimators.tvm:ESTIMATOR",
    "pqm": "qvlib.estimators.pqm:ESTIMATOR",
    "bradley_terry": "qvlib.estimators.bradley_terry:ESTIMATOR",
}

__all__ = [
    "ESTIMATORS",
    "Card",
    "Estimator",
    "Fitted",
    "OpenModel",
    "Problem",
    "estimator_of",
    "minimised",
]


def estimator_of(name: str) -> Estimator:
    """The estimator of a name in ``ESTIMATORS``, or of one's own ``module:ATTRIBUTE``.

    Raises:
        QvlibError: no such name, module or attribute, or what it names is no ``Estimator``.
    """
    if name in ESTIMATORS:
        return attribute(ESTIMATORS[name], "estimator")
    if ":" not in name:
        near = difflib.get_close_matches(name, ESTIMATORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(ESTIMATORS)}"
        raise QvlibError(
            f"estimator {name!r}: no such name ({hint}); one of your own is named module:ATTRIBUTE"
        )
    estimator = attribute(name, "estimator")
    if not isinstance(estimator, Estimator):
        raise QvlibError(
            f"estimator {name!r}: it is a {type(estimator).__name__}; make it a "
            "qvlib.estimators.Estimator(name, settings, fit, load)"
        )
    source, sha256 = module(name, "estimator")
    return replace(estimator, sources={Path(source.__file__ or source.__name__).name: sha256})


def minimised(estimator: Estimator) -> Callable[..., Any]:
    """What an estimator minimises; of one that names no loss, how it is fitted."""
    return attribute(estimator.loss, "loss") if estimator.loss else estimator.fit
