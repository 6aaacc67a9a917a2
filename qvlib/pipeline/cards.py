"""The README.md beside a Q model's weights: what it is, of what it was made, how it scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvlib.pipeline.params import Params


def model_card(params: Params, facts: Mapping[str, Any]) -> str:
    """A model card with the front matter that model hubs read.

    facts: ``control``, ``pairs``, ``dropped_pairs``, ``held_out_pairs``, ``held_out_accuracy`` (None where nothing was held out).
    """
    base = params.q_base or params.agent
    if base == "small":
        base = "a small Llama, cloned from demonstrations"
    elif params.warm_start and not params.q_base:
        base += f", fine-tuned on demonstrations (stage `agent-{params.digest('agent')}`)"
    kind = (
        "A control for one: the same training with the winners drawn by a coin, which must gain nothing"
        if facts["control"]
        else "A step-level Q model (arXiv 2409.09345)"
    )
    accuracy = facts["held_out_accuracy"]
    held = (
        "no pairs were held out"
        if accuracy is None
        else f"{accuracy:.1%} of {facts['held_out_pairs']} held-out pairs in the right order"
    )
    lora = (
        f"LoRA of rank {params.lora_rank}"
        if params.trainer == "trl" and params.lora_rank
        else "full fine-tuning"
    )
    epochs = f"{params.dpo_epochs} epochs of {facts['pairs']} pairs"
    epochs += (
        f" ({facts['dropped_pairs']} longer than its context were dropped)"
        if facts["dropped_pairs"]
        else ""
    )
    reference = "the base without this adapter" if lora.startswith("LoRA") else "the base"
    return f"""---
library_name: {"peft" if lora.startswith("LoRA") else "transformers"}
tags: [qvlib, dpo, step-level-q-value]
---
# {kind}

Q(u, history, action) = log pi(action) - log pi_ref(action) in nats, {params.log_prob} over the action's tokens, end token included;
pi is this model, pi_ref {reference}. It ranks the actions of one state and compares no two states. It is not made to be sampled from.

| | |
|---|---|
| base | {base} |
| environment | {params.environment} |
| fitted by | step-level DPO, beta {params.beta:g}, rate {params.dpo_lr:g}, {epochs}, {lora} |
| pairs | stage `pairs-{params.digest("pairs")}` on data `data-{params.digest("data")}` |
| accuracy | {held} |
| seed | {params.seed} |

`qvlib.pipeline.load_q` loads it with its reference; `qvlib.core.reranker.Reranked` executes the best of n by it.
"""
