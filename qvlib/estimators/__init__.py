"""Ways to estimate the value of a step, each fitted to the same trees.

An estimator is one file with a record ``ESTIMATOR`` and one line in the list here; one that lies
outside the package is named ``module:ATTRIBUTE``. Files of estimators are light: what needs torch
is imported when it is fitted or loaded.
"""

from __future__ import annotations

from qvlib.base.errors import QvlibError
from qvlib.base.imports import attribute
from qvlib.estimators.estimator import Card, Estimator, Fitted, OpenModel, Problem

ESTIMATORS: dict[str, str] = {
    "step_dpo": "qvlib.estimators.step_dpo:ESTIMATOR",
}

__all__ = ["ESTIMATORS", "Card", "Estimator", "Fitted", "OpenModel", "Problem", "estimator_of"]


def estimator_of(name: str) -> Estimator:
    """The estimator of a name in ``ESTIMATORS``, or of one's own ``module:ATTRIBUTE``.

    Raises:
        QvlibError: no such name, module or attribute, or what it names is no ``Estimator``.
    """
    if name not in ESTIMATORS and ":" not in name:
        raise QvlibError(
            f"estimator {name!r} is unknown; give one of {', '.join(ESTIMATORS)}, or "
            "module:ATTRIBUTE of your own"
        )
    estimator = attribute(ESTIMATORS.get(name, name), "estimator")
    if not isinstance(estimator, Estimator):
        raise QvlibError(
            f"estimator {name!r}: it is a {type(estimator).__name__}; make it a "
            "qvlib.estimators.Estimator(name, settings, fit, load)"
        )
    return estimator
