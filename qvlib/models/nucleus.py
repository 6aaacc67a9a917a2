"""The next-token distribution that is sampled from, and a reply drawn from it token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # what reads nuclei alone need not wait for torch
    import torch

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Nucleus:
    """The next-token distribution that is sampled from, most likely first.

    tokens [K], cumulative [K] (last = 1), log_probs [K] (of the full distribution at temperature 1,
    nats).
    """

    tokens: np.ndarray
    cumulative: np.ndarray
    log_probs: np.ndarray


def nucleus_of(log_probs: np.ndarray, temperature: float, top_p: float) -> Nucleus:
    """The smallest set of most likely tokens whose probability reaches ``top_p``.

    log_probs: [V], at temperature 1; ``top_p`` is meant at ``temperature``. Ties are broken by
    token id.
    """
    scaled = np.exp((log_probs - log_probs.max()) / temperature)
    scaled /= scaled.sum()
    # The nucleus is small: sort only what could be in it.
    candidates = (
        np.flatnonzero(scaled >= (1 - top_p) / len(scaled)) if top_p < 1 else np.arange(len(scaled))
    )
    order = candidates[np.argsort(-scaled[candidates], kind="stable")]
    cumulative = np.cumsum(scaled[order])
    size = min(int(np.searchsorted(cumulative, top_p)) + 1, len(order))
    order, cumulative = order[:size], cumulative[:size]
    return Nucleus(order, cumulative / cumulative[-1], log_probs[order])


def nuclei_on_device(log_probs: torch.Tensor, temperature: float, top_p: float) -> list[Nucleus]:
    """``nucleus_of`` of each row of log_probs [B, V], float64, sorted where they are.

    So that of a large vocabulary on a GPU only the nuclei are copied. Sums are in another order
    than ``nucleus_of``'s: the same but for rounding.
    """
    scaled, order = (log_probs / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    cumulative = scaled.cumsum(-1)
    sizes = ((cumulative < top_p).sum(-1) + 1).clamp(max=log_probs.shape[1])
    most = int(sizes.max())
    own = log_probs.gather(1, order[:, :most]).cpu().numpy()
    tokens, reached = order[:, :most].cpu().numpy(), cumulative[:, :most].cpu().numpy()
    return [
        Nucleus(tokens[i, :k].copy(), reached[i, :k] / reached[i, k - 1], own[i, :k].copy())
        for i, k in enumerate(sizes.tolist())
    ]


class Sample:
    """One reply under way; ``at`` of its tokens are computed.

    log_prob: of all its tokens, log_probs: of each, nats.
    prompt, number: which prompt it answers, and its number among the replies to that.
    draw: gives the next uniform number in [0, 1); None is greedy.
    """

    __slots__ = ("at", "draw", "ids", "log_prob", "log_probs", "number", "prompt")

    def __init__(self, prompt: int, number: int, draw: Callable[[], float] | None) -> None:
        self.prompt, self.number, self.draw = prompt, number, draw
        self.ids: Ids = ()
        self.log_probs: list[float] = []
        self.log_prob, self.at = 0.0, 0

    def step(self, nucleus: Nucleus) -> None:
        """Draw the next token."""
        if self.draw is None:
            i = 0
        else:
            i = int(np.searchsorted(nucleus.cumulative, self.draw(), side="right"))
        i = min(i, len(nucleus.tokens) - 1)
        self.ids = (*self.ids, int(nucleus.tokens[i]))
        self.log_probs.append(float(nucleus.log_probs[i]))
        self.log_prob += self.log_probs[-1]

    def finished(self, ends: frozenset[int], longest: int) -> bool:
        """Whether it ends with one of ``ends`` or has ``longest`` tokens."""
        return bool(self.ids) and (self.ids[-1] in ends or len(self.ids) >= longest)
