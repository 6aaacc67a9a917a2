"""The README.md beside a Q model's weights: what it is, of what it was made, how it scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvlib.estimators import Card
from qvlib.pipeline.params import Params


def model_card(params: Params, facts: Mapping[str, Any], card: Card) -> str:
    """A model card with the front matter that model hubs read.

    facts: those of ``Fitted``, and ``control``: whether the winners were shuffled.
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
    return f"""---
library_name: {card.library}
tags: [{", ".join(("qvlib", *card.tags))}]
---
# {kind}

{card.score}

| | |
|---|---|
| base | {base} |
| environment | {params.environment} |
| fitted by | {card.recipe} |
| pairs | stage `pairs-{params.digest("pairs")}` on data `data-{params.digest("data")}` |
| accuracy | {held} |
| seed | {params.seed} |

`qvlib.pipeline.load_q` loads it with its reference; `qvlib.core.reranker.Reranked` executes the best of n by it.
"""
