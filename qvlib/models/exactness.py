"""Whether a model gives, from kept keys and values and beside others, what it gives alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from qvlib.base.errors import QvlibError, one_line
from qvlib.models.local import LocalModel

# Most that logits may differ by, in their own standard deviations: precision alone explains less.
ROUNDING = {torch.float64: 1e-4, torch.float32: 1e-2, torch.bfloat16: 0.5, torch.float16: 0.1}


def check_scores(lm: LocalModel, name: Any) -> None:
    """Refuse a model whose logits change with what it is computed beside.

    Two replies to each of two prompts of unequal length, as scoring computes them (padded, each
    prompt once, one from a kept beginning), against passes of one sequence each.

    Raises:
        QvlibError: names the model.
    """
    vocabulary = range(lm.model.get_input_embeddings().weight.shape[0])
    ids = list(islice((i for i in vocabulary if i not in lm.ends), 40))
    first, second = tuple(ids[:16]), tuple(ids[16:23])
    rows = [(p, r) for p in (first, second) for r in (tuple(ids[-5:-2]), tuple(ids[-2:]))]
    other = replace(lm, cache_tokens=min(lm.cache_tokens, 64), usage=Counter())
    try:
        other.reply_logits([(first[:-3], rows[0][1])])
        together = other.reply_logits(rows)
        alone = [_alone(lm, *row) for row in rows]
    except (TypeError, AttributeError, ValueError, LookupError, NotImplementedError) as error:
        raise QvlibError(
            f"{name}: a model of type {lm.model.config.model_type} cannot be sampled from kept "
            f"keys and values ({one_line(error, 80)}); use another architecture, or serve it: "
            "api:MODEL"
        ) from error
    worst = max(
        float((together[i, : len(one)] - one).abs().max() / one.std().clamp(min=1e-12))
        for i, one in enumerate(alone)
    )
    if not worst < ROUNDING[lm.model.dtype]:
        raise QvlibError(
            f"{name}: a model of type {lm.model.config.model_type} gives other logits beside "
            f"others than alone (by {worst:.2g} standard deviations), so that its scores would not "
            "be its own; use another architecture, or serve it: api:MODEL"
        )


@torch.inference_mode()
def _alone(lm: LocalModel, prompt: tuple[int, ...], reply: tuple[int, ...]) -> torch.Tensor:
    """The logits that predict the reply, [tokens, V], by one pass without a cache."""
    ids = torch.tensor([prompt + reply[:-1]], device=lm.model.device)
    logits = lm.model(input_ids=ids, use_cache=False).logits[0].double()
    return logits[len(prompt) - 1 :]
