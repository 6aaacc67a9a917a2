"""Temporal differences that tune the model too: ArCHer's critic of utterances (arXiv 2402.19446).

The backup is Digi-Q's, which took it from here. What differs is what this file sets: the critics'
gradient reaches all of the model below them, and there are target networks of it too; V expects the
policy's own draws, not the data's actions; a step further away counts 0.9. ArCHer then improves an
actor with the advantage min Q - min V; here the critic ranks actions.
"""

from __future__ import annotations

from typing import Literal

from qvlib.base.settings import setting
from qvlib.estimators.digi_q import DigiQSettings, fit, load
from qvlib.estimators.estimator import Estimator


class ArcherSettings(DigiQSettings):
    """The settings of temporal differences, with ArCHer's defaults."""

    features: Literal["tuned", "frozen"] = setting(
        "tuned",
        "tuned = model and critics are trained together (ArCHer); frozen = the critics alone, on "
        "hidden states that are computed once for a set of trees",
    )
    head_width: int = setting(
        64, "hidden size of each critic; 0 = linear (ArCHer: two layers, 768)", ge=0
    )
    fit_lr: float = setting(
        3.0e-4, "peak learning rate; linear to 0 after a tenth (ArCHer: 2e-5, constant)", gt=0
    )
    fit_epochs: int = setting(
        2, "epochs over the states of the trees (ArCHer: 50 batches of 256 actions a round)", ge=1
    )
    td_discount: float = setting(
        0.9, "what is left of a value a step further away (ArCHer: 0.9)", gt=0, le=1
    )
    td_tau: float = setting(
        0.1, "share of the critics in their target networks at each step (ArCHer: 0.1)", gt=0, le=1
    )
    td_actions: Literal["visits", "samples", "even"] = setting(
        "samples",
        "the actions that V expects: as often as the search took them; as often as the policy drew "
        "them (ArCHer), of those that were visited; each alike",
    )
    td_critics: Literal["min", "max"] = setting(
        "min", "the score of two critics: the smaller (ArCHer), or the larger"
    )


ESTIMATOR = Estimator(
    "archer",
    ArcherSettings,
    fit,
    load,
    values=True,
    loss="qvlib.estimators.digi_q:td_error",
    unit="reward",
)
