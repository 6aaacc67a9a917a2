"""How often bfloat16 changes which action has the highest Q.

On a real model, and a policy that DPO has just begun to tune.
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.statistics import bootstrap_mean
from qvlib.core.types import Environment, State
from qvlib.estimators.data import PairIds
from qvlib.estimators.step_dpo_loop import train
from qvlib.models.names import SMOLLM2
from qvlib.report.formats import interval
from qvlib.tools.bench.common import Rows

if TYPE_CHECKING:
    from qvlib.models.local import LocalModel

STATES, CANDIDATES = 50, 5
PAIRS, BATCH, LR, BETA = 6, 2, 2e-5, 0.1  # of the tuning: three steps
RESAMPLES = 10_000
WORLD = {"catalogue_products": 200, "wandb_mode": "disabled", "cache_tokens": 6000}
Decision = tuple[State, str]
Choices = list[tuple[State, list[str]]]


def run(repeats: int, model: str = SMOLLM2) -> tuple[Rows, dict[str, Any]]:
    """Which of five actions has the highest Q = log pi - log pi_ref, in float32 and with bfloat16.

    50 states of unseen tasks of the embedded shop, as the scripted shopper meets them, with five of
    the actions that each lists. The reference is SmolLM2-135M-Instruct; the policy is it after
    three steps of DPO (beta 0.1, learning rate 2e-5, all weights, in float32) on 6 pairs: what the
    shopper did early in training tasks, before another action of the page.

    ``all in bfloat16``: weights and all that is computed, but for the sums of matrix products,
    which are rounded once they are made. ``weights in bfloat16``: those of policy and reference, as
    after saving them so; computed in float32. Neither is what qvlib does: its Q is in float32.

    Columns: states in which another action than in float32 is the best (by chance alone it would be
    80 %), with an interval that resamples products; how far Q is from that in float32, mean over
    replies, and over replies by their tokens; the standard deviation of Q among the five, mean over
    states, in float32 and so; what is lost of Q in float32 by taking that action. Nats. ``ratio``
    is the first row's share. Nothing is timed.

    Raises:
        QvlibError: the model's package is not installed, or the model given is none.
    """
    from qvlib.pipeline import context_of, models
    from qvlib.pipeline.params import make

    with tempfile.TemporaryDirectory() as folder:
        params = make({**WORLD, "dtype": "float32", "runs_dir": folder})
        context = context_of(params)
        lm, shop = models.load(context, model), context.environment
        pairs = list(
            islice(
                (pair for episode in _episodes(shop, "train") for pair in _pairs(lm, episode[:2])),
                PAIRS,
            )
        )
        policy, curve = train(
            lm, pairs, (), beta=BETA, lr=LR, epochs=1, batch=BATCH, rule="sum", seed=0
        )
        policy.model.zero_grad()  # a model's worth of memory
        rows, result = compare(policy, lm, choices(shop, STATES))
    return rows, {
        **result,
        "model": model,
        "pairs": len(pairs),
        "loss": [round(row["loss"], 4) for row in curve],
    }


def compare(
    policy: LocalModel, reference: LocalModel, episodes: Sequence[Choices]
) -> tuple[Rows, dict[str, Any]]:
    """``run`` with models and states of one's own, both models in float32."""
    exact, tokens = _scored(policy, reference, episodes)
    best, index = exact.argmax(1), np.arange(len(exact))
    products = [state.task.group for episode in episodes for state, _ in episode]
    rows = []
    for name, way in (("all in bfloat16", computed), ("weights in bfloat16", stored)):
        q, _ = _scored(way(policy), way(reference), episodes)
        chosen, off = q.argmax(1), np.abs(q - exact)
        share, low, high = bootstrap_mean(chosen != best, products, RESAMPLES)
        rows.append(
            {
                "Q": name,
                "states": len(q),
                "changed": int((chosen != best).sum()),
                "share": share,
                "95 %": interval(low, high),
                "difference a reply": off.mean(),
                "a token": (off / tokens).mean(),
                "spread in float32": exact.std(1).mean(),
                "spread": q.std(1).mean(),
                "lost": (exact.max(1) - exact[index, chosen]).mean(),
            }
        )
    return rows, {
        "ratio": rows[0]["share"],
        "weights": rows[1]["share"],
        "states": len(exact),
        "spread": round(float(exact.std(1).mean()), 4),
    }


def choices(shop: Environment, states: int) -> list[Choices]:
    """(state, candidates) of the shopper's episodes on test tasks, an episode a list."""
    episodes: list[Choices] = []
    for episode in _episodes(shop, "test"):
        left = states - sum(map(len, episodes))
        if not left:
            break
        episodes.append([(state, _drawn(state, CANDIDATES)) for state, _ in episode[:left]])
    return episodes


def computed(lm: LocalModel) -> LocalModel:
    """A copy in bfloat16: weights, and each result as it is made.

    What places words stays in float32, as where models are loaded so.
    """
    import torch
    from torch import nn

    model = copy.deepcopy(lm.model)
    for weight in model.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, _linear(child))
    return lm.tuned(model)


def stored(lm: LocalModel) -> LocalModel:
    """A copy whose weights went through bfloat16, in float32."""
    import torch

    model = copy.deepcopy(lm.model)
    for weight in model.parameters():
        weight.data = weight.data.to(torch.bfloat16).float()
    return lm.tuned(model)


def _linear(layer: Any) -> Any:
    """A linear layer in bfloat16 that sums in float32, as processors with units for it do.

    Others take ten times as long by themselves.
    """
    import torch
    from torch.nn import functional as F

    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x.float(), self.weight, self.bias).to(torch.bfloat16)

    linear = Linear()
    linear.register_buffer("weight", layer.weight.float())
    linear.register_buffer("bias", None if layer.bias is None else layer.bias.float())
    return linear


def _scored(
    policy: LocalModel, reference: LocalModel, episodes: Sequence[Choices]
) -> tuple[np.ndarray, np.ndarray]:
    """Q of each candidate of each state, and its tokens: [states, candidates] each.

    A prompt goes on from the one before it.
    """
    from qvlib.estimators.log_ratio import LogRatio

    q = LogRatio(policy, reference)
    rows = [(*row, q.score([row[0]], [row[1]])[0]) for episode in episodes for row in episode]
    return (
        np.array([scores for *_, scores in rows]),
        np.array(
            [
                [len(reference.action_ids(reference.prompt(state)[0], a)) for a in actions]
                for state, actions, _ in rows
            ]
        ),
    )


def _episodes(shop: Environment, split: str) -> Iterator[list[Decision]]:
    """The shopper's decisions, an episode a list, on pages that list enough actions."""
    from qvlib.core.episodes import decisions, demonstrate
    from qvlib.environments.webshop.shopper import Shopper

    for task in shop.tasks(split):
        (record,) = demonstrate(shop, [task], Shopper(shop), seed=0, width=1)
        yield [
            (state, action)
            for state, action in decisions(shop, task, record["actions"])
            if len(_listed(state)) >= CANDIDATES and action in _listed(state)
        ]


def _pairs(lm: LocalModel, episode: Sequence[Decision]) -> Iterator[PairIds]:
    for state, action in episode:
        prompt, ids = lm.prompt(state)
        other = next(drawn for drawn in _drawn(state, 2) if drawn != action)
        yield PairIds(ids, lm.action_ids(prompt, action), lm.action_ids(prompt, other))


def _drawn(state: State, n: int) -> list[str]:
    return (
        generator(0, "bench", "precision", state.task.id, state.depth, n)
        .choice(_listed(state), n, replace=False)
        .tolist()
    )


def _listed(state: State) -> list[str]:
    return [action for action in state.admissible or () if not re.fullmatch(r"\w+\[<.*>\]", action)]


__all__ = ["choices", "compare", "computed", "run", "stored"]
