"""Step-level DPO with a term of optimism or pessimism: VPO (arXiv 2405.19320), as we read it.

VPO adds sign alpha J*(r) to the likelihood of the preferences, J*(r) the value that the best policy
would have under reward r. With rewards that are zero on average under a fixed distribution pi_cal,
J*(r) is -beta E_cal[log pi - log pi_ref], which is the term here. Its form is from the paper's
abstract and its reviews and from XPO (arXiv 2405.21046), whose optimistic term has the same sign;
the equations of the paper and a code of its authors were not at hand, and what is drawn from pi_cal
here, and alpha, are choices of ours.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from qvlib.base.settings import setting
from qvlib.estimators.estimator import Estimator, Fitted, Problem
from qvlib.estimators.tuned import TunedSettings, load
from qvlib.estimators.tuning import fit_by_loop

if TYPE_CHECKING:
    from torch import Tensor


class VPOSettings(TunedSettings):
    """The settings of VPO."""

    vpo: Literal["pessimism", "optimism"] = setting(
        "pessimism",
        "pessimism = what is known to win becomes likelier (paper: offline); optimism = what the "
        "agent does becomes rarer (paper: online)",
    )
    vpo_alpha: float = setting(0.1, "weight alpha of the term (ours); 0 = step-level DPO", ge=0)


def vpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    alpha: float,
    optimism: bool,
) -> Tensor:
    """``dpo_loss`` + sign alpha beta E_cal[log pi - log pi_ref], [B]; sign + for optimism.

    Log-probabilities in nats, [B], as ``dpo_loss`` takes them. Pessimism: sign -, pi_cal is what
    was chosen, as in a supervised loss on it. Optimism: pi_cal are both actions, which the agent
    itself has sampled.
    """
    from qvlib.core.dpo import dpo_loss

    loss = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)
    if optimism:
        return loss + alpha * beta * ((chosen - ref_chosen) + (rejected - ref_rejected)) / 2
    return loss - alpha * beta * (chosen - ref_chosen)


def fit(problem: Problem, settings: VPOSettings) -> Fitted:
    """Tune a copy of the reference on the pairs that fit its context; the others are dropped.

    Raises:
        QvlibError: no pair fits, a pair's task is unknown, training diverged, or a launcher started
            several processes.
    """
    from qvlib.estimators.data import encode

    lm = problem.reference
    rows, held_out = (
        encode(problem.environment, lm, pairs) for pairs in (problem.train, problem.held_out)
    )
    terms = {"alpha": settings.vpo_alpha, "optimism": settings.vpo == "optimism"}
    loss = partial(vpo_loss, beta=settings.beta, **terms)

    def of_rows(rows: Any, *log_probs: Tensor) -> Tensor:
        return loss(*log_probs)

    return fit_by_loop(
        problem,
        settings,
        rows,
        held_out,
        f"VPO, {settings.vpo}, alpha {settings.vpo_alpha:g}, beta {settings.beta:g}",
        loss=of_rows,
        terms=terms,
    )


ESTIMATOR = Estimator(
    "vpo", VPOSettings, fit, load, policy=True, loss="qvlib.estimators.vpo:vpo_loss", unit="nats"
)
