"""The settings that all estimators with a head share."""

from __future__ import annotations

from typing import ClassVar, Literal

from qvlib.base.settings import Settings, setting


class HeadSettings(Settings):
    """A network on the last hidden state of an action, tuned with the model or on it as it is."""

    stage: ClassVar[str | None] = "q_model"

    features: Literal["tuned", "frozen"] = setting(
        "tuned",
        "tuned = model and head are trained together; frozen = the head alone, on hidden states "
        "that are computed once for a set of trees",
    )
    head_width: int = setting(
        0, "hidden size of the head; 0 = linear (AgentRM: linear; QLASS: two layers)", ge=0
    )
    head_init: Literal["zero", "random"] = setting(
        "zero", "last layer of the head before training: 0, or drawn as torch draws it"
    )
    head_lr: float = setting(0.0, "peak learning rate of the head; 0 = fit_lr", ge=0)
    fit_lr: float = setting(3.0e-4, "peak learning rate; linear to 0 after a tenth", gt=0)
    fit_epochs: int = setting(1, "epochs over the states of the trees (AgentRM: 2)", ge=1)
    fit_batch: int = setting(8, "states a batch, each with all its visited actions", ge=1)
