"""Temporal differences on frozen hidden states (Digi-Q, arXiv 2502.15760).

Two critics on features of a model that stays as it is. The features are those of the agent's own
model; the paper first tunes its model to tell whether an action changes what is seen.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qvlib.base.settings import setting
from qvlib.core.types import QModel
from qvlib.estimators.estimator import Estimator, Fitted, OpenModel, Problem
from qvlib.estimators.head_settings import HeadSettings

if TYPE_CHECKING:
    import torch

    from qvlib.models.local import LocalModel

READS = {"min": lambda out: out[..., :2].amin(-1), "max": lambda out: out[..., :2].amax(-1)}
"""How both critics' Q, [N, >= 2], become a score."""


class DigiQSettings(HeadSettings):
    """The settings of temporal differences."""

    features: Literal["tuned", "frozen"] = setting(
        "frozen",
        "frozen = the critics alone, on hidden states that are computed once for a set of trees "
        "(Digi-Q); tuned = the model below them too",
    )
    head_width: int = setting(
        64, "hidden size of each critic; 0 = linear (Digi-Q: three or four layers, 4096)", ge=0
    )
    head_init: Literal["zero", "random"] = setting(
        "random", "last layer of the critics before training: 0, or drawn as torch draws it"
    )
    fit_lr: float = setting(
        1.0e-3, "peak learning rate; linear to 0 after a tenth (Digi-Q: 1e-5, constant)", gt=0
    )
    fit_epochs: int = setting(
        20, "epochs over the states of the trees (Digi-Q: 800 batches of 128 actions)", ge=1
    )
    td_discount: float = setting(
        0.95, "what is left of a value a step further away (Digi-Q: 0.95)", gt=0, le=1
    )
    td_tau: float = setting(
        0.1, "share of the critics in their target networks at each step (Digi-Q: 0.1)", gt=0, le=1
    )
    td_actions: Literal["visits", "samples", "even"] = setting(
        "visits",
        "the actions that V expects: as often as the search took them, the data's (Digi-Q's code); "
        "as often as the policy drew them; each alike",
    )
    td_critics: Literal["min", "max"] = setting(
        "min", "the score of two critics: the smaller, or the larger (Digi-Q's code)"
    )


def td_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(Q_i(s, a) - r - gamma V_i'(s'))^2, mean over a, + (V_i(s) - Q_i'(s, a))^2, of each critic.

    outputs: [1 + n, 4], columns Q_1, Q_2, V_1, V_2, rows the state, then its n actions. targets:
    [1 + n, 2], the state's for both V, then each action's for both Q (``td.backup``).
    """
    q_error = ((outputs[1:, :2] - targets[1:]) ** 2).mean(0)
    return q_error + (outputs[0, 2:] - targets[0]) ** 2


def fit(problem: Problem, settings: DigiQSettings) -> Fitted:
    """Fit two critics to all visited actions of the trees of training tasks.

    Raises:
        QvlibError: no state fits the model's context, or training diverged.
    """
    from qvlib.estimators.head_loop import fit_head
    from qvlib.estimators.td import Targets, new_critics, transitions

    discount = settings.td_discount
    return fit_head(
        problem,
        transitions(problem, settings.td_actions, settings.td_discount),
        settings,
        td_error,
        score="An estimate of the value of an action and of going on as the trees do, in units of "
        f"reward of which {discount:g} is left a step further away.",
        recipe=f"temporal differences of two critics, discount factor {discount:g}",
        read=READS[settings.td_critics],
        head=new_critics(problem, settings),
        moving=partial(Targets, discount, settings.td_tau),
    )


def load(
    folder: Path, reference: LocalModel, settings: DigiQSettings, open_model: OpenModel
) -> QModel:
    """Both Q on the hidden states of the model below them."""
    from qvlib.estimators.heads import scorer
    from qvlib.models.heads import load_beside

    read = READS[settings.td_critics]
    return scorer(folder, reference, open_model, read, lambda at: load_beside(at, ("q1", "q2")))


ESTIMATOR = Estimator(
    "digi_q",
    DigiQSettings,
    fit,
    load,
    values=True,
    loss="qvlib.estimators.digi_q:td_error",
    unit="reward",
)
