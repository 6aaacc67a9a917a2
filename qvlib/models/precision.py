"""Float64 throughout, for what transformers computes in float32 whatever the model's precision.

Processors round and sum in other orders. In float32 that is the seventh digit, which training grows
into the second; in float64 it stays so far behind that tables are the same everywhere.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding


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
