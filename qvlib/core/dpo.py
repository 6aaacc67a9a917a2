"""The loss of step-level DPO (arXiv 2409.09345, its step-level loss; DPO: arXiv 2305.18290)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """-log sigmoid(beta [(log pi - log pi_ref)(chosen) - (log pi - log pi_ref)(rejected)]), [B].

    chosen, rejected: log-probabilities of the two actions under the policy, nats, [B];
    ref_*: under the reference, [B]. With policy = reference it is ln 2.
    """
    from torch.nn.functional import logsigmoid  # here, so that core loads without torch

    return -logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))
