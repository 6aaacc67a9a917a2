"""Several replies after each prompt, side by side in one row of a pass.

The prompt's keys and values are read by all of them: they are neither repeated nor copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qvlib.models import packing
from qvlib.models.nucleus import Ids
from qvlib.models.prefixes import joinable

# Most that a logit may differ by from a pass by itself, in standard deviations: rounding is less.
ROUNDING = {torch.float64: 3e-5, torch.float32: 3e-5}
COARSE_ROUNDING = 3e-2  # in half precision


def reply_logits(
    model: Any, cache: Any, mask: torch.Tensor, parents: Sequence[int], replies: Sequence[Ids]
) -> torch.Tensor:
    """Logits after each token of each reply, [replies, longest, V]; beyond a reply's end, nothing.

    cache, mask [B, T]: keys and values of prompts padded on the left, and which are real; they must
    be ``joinable``. parents: which prompt each reply goes on from. Replies do not see each other.
    """
    starts: list[int] = []
    groups: list[list[Ids]] = [[] for _ in mask]
    for parent, reply in zip(parents, replies, strict=True):
        starts.append(packing.size((), groups[parent]))
        groups[parent].append(reply)
    side = packing.packed([((), group) for group in groups], 0)  # their prompts are in the cache
    device, width = mask.device, side.ids.shape[1]
    before = torch.zeros(mask.shape, dtype=model.dtype, device=device)
    before = before.masked_fill(mask == 0, torch.finfo(model.dtype).min)[:, None, None]
    own = side.mask(model.dtype).to(device)
    logits = model(
        input_ids=side.ids.to(device),
        attention_mask=torch.cat([before.expand(-1, -1, width, -1), own], dim=3),
        position_ids=mask.sum(1, keepdim=True) + side.place.to(device),
        past_key_values=cache,
        use_cache=True,
    ).logits
    at = torch.tensor(starts)[:, None] + torch.arange(max(map(len, replies)))
    rows = torch.tensor(list(parents), device=device)[:, None]
    return logits[rows, at.clamp(max=width - 1).to(device)]


@torch.inference_mode()
def branches(model: Any) -> bool:
    """Whether replies beside each other are to the model what they are alone.

    Not where attention goes by more than the mask (GPT-Neo's windows, which short prompts would not
    show), where a mask or positions of one's own are refused or not heeded (ALiBi), nor where the
    cache is more than keys and values of all tokens (windows, recurrent states). Tried on two short
    prompts with two replies each.
    """
    if not any(getattr(part, "_supports_attention_backend", False) for part in model.modules()):
        return False
    ids = tuple(i % model.config.get_text_config().vocab_size for i in range(3, 43))
    prompts = [ids[:20], ids[20:27]]
    replies = [ids[27:30], ids[30:32], ids[32:36], ids[36:37]]
    width = max(map(len, prompts))
    rows = torch.tensor([(0,) * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor(
        [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device
    )
    places = (mask.cumsum(1) - 1).clamp(min=0)
    parents = [0, 1, 1, 0]
    try:
        cache = model(
            input_ids=rows, attention_mask=mask, position_ids=places, use_cache=True
        ).past_key_values
        if not joinable(cache):
            return False
        together = reply_logits(model, cache, mask, parents, replies)
        worst = 0.0
        for i, (parent, reply) in enumerate(zip(parents, replies, strict=True)):
            whole = torch.tensor([prompts[parent] + reply], device=model.device)
            alone = model(input_ids=whole, use_cache=False).logits[0, -len(reply) :].double()
            apart = (together[i, : len(reply)] - alone).abs().max() / alone.std().clamp(min=1e-12)
            worst = max(worst, float(apart))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
        return False  # what models say of what they cannot do
    return worst < ROUNDING.get(model.dtype, COARSE_ROUNDING)
