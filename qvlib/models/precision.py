"""The same on every processor: float64 throughout, and steps that do not grow what differs.

Processors round and sum in other orders. In float32 that is the seventh digit, in float64 the
sixteenth, and training grows either until two kinds of processor have other agents. So ``steady``
rounds each step's gradients to bfloat16: what differs far behind is then no longer there, and does
not come back (``tests/test_precision.py``).
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding


@torch.no_grad()
def steady(model: nn.Module) -> None:
    """Round the gradients of float64 weights to the eight bits of bfloat16.

    That is far less than a batch differs from the next. A gradient just at an edge of the rounding
    may still fall to either side, which is rare, since the edges are far apart.
    """
    for weight in model.parameters():
        if weight.grad is not None and weight.dtype == torch.float64:
            weight.grad.copy_(weight.grad.to(torch.bfloat16))


class Rotary(nn.Module):
    """Rotary positions in float64, for ``LlamaRotaryEmbedding`` without scaling."""

    def __init__(self, base: float, size: int) -> None:
        super().__init__()
        powers = torch.arange(0, size, 2, dtype=torch.float64) / size
        self.register_buffer("frequencies", base**-powers, persistent=False)

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin) of the positions [B, T], each [B, T, size]."""
        angles = (position_ids[..., None].double() * self.frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()


def in_own_precision(model: PreTrainedModel) -> PreTrainedModel:
    """A float64 Llama with its norms and positions in float64 as well; any other model as it is."""
    if model.dtype != torch.float64:
        return model
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, LlamaRMSNorm):
                norm = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon, device="meta")
                norm.weight = child.weight
                setattr(module, name, norm)
            elif isinstance(child, LlamaRotaryEmbedding) and child.rope_type == "default":
                rotary = Rotary(child.config.rope_parameters["rope_theta"], 2 * len(child.inv_freq))
                setattr(module, name, rotary.to(model.device))
    return model
