"""The README.md beside a Q model's weights: what it is, of what it was made, how it scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvlib.estimators import Card
from qvlib.pipeline.params import Params

CONTROL = "A control for a Q model: the same training with the winners drawn by a coin"

ETO = "An agent tuned on its best against its worst episodes (ETO, arXiv 2403.02502)"

CRITIC = "A critic: a step-level Q model fitted to half of the tasks, to see where critics disagree"


def model_card(params: Params, facts: Mapping[str, Any], card: Card) -> str:
    """A model card with the front matter that model hubs read.

    facts: those of ``Fitted``, and ``control``: whether the winners were shuffled, ``critic``:
        whether only some tasks were used.
    """
    base = params.q_model.q_base or params.agent.agent
    if base == "small":
        base = "a small Llama, cloned from demonstrations"
    elif params.agent.warm_start and not params.q_model.q_base:
        base += f", fine-tuned on demonstrations (stage `agent-{params.digest('agent')}`)"
    title = CONTROL if facts["control"] else "A step-level Q model (arXiv 2409.09345)"
    title = CRITIC if facts.get("critic") else ETO if facts.get("eto") else title
    accuracy, pairs = facts["held_out_accuracy"], facts["held_out_pairs"]
    ordered = "no pairs were held out"
    if accuracy is not None:
        ordered = f"{accuracy:.1%} of {pairs} held-out pairs in the right order"
    return f"""---
library_name: {card.library}
tags: [{", ".join(("qvlib", *card.tags))}]
---
# {title}

{card.score}

| | |
|---|---|
| base | {base} |
| environment | {params.world.environment} |
| fitted by | {card.recipe} |
| pairs | stage `pairs-{params.digest("pairs")}` on data `data-{params.digest("data")}` |
| accuracy | {ordered} |
| seed | {params.run.seed} |

`qvlib.pipeline.Context(params).q_model()` loads it with its reference;
`qvlib.Reranked` executes the best of n by it.
"""


def dropped_pairs(facts: Mapping[str, Any]) -> str:
    """How many pairs were left out of training and of what is held out; empty where all fit."""
    train, held_out = facts.get("dropped_pairs", 0), facts.get("dropped_held_out_pairs", 0)
    if not train and not held_out:
        return ""
    return (
        f"{train} training and {held_out} held-out pairs are longer than the model's context and "
        "were dropped."
    )


def notes(facts: Mapping[str, Any]) -> list[str]:
    """What to tell of a fit that went another way than usual, a line each."""
    lines = [dropped_pairs(facts)]
    if not facts.get("packed", True):
        lines.append(
            "The two actions of a pair cannot share a pass of this kind of model: each has one of "
            "its own, which takes longer."
        )
    if facts.get("unread"):
        lines.append(
            f"{facts['unread']} replies about held-out pairs held no number from 0 to 100; each "
            "counts one half."
        )
    return [line for line in lines if line]
