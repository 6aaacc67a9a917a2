"""Key-value caches of prompts that were computed, for prompts that start with them.

A conversation that only grows at its end pays for each of its tokens once: over the steps of an episode,
over the levels of a tree, and over all tasks for the instructions they share.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

Ids = tuple[int, ...]
Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, [heads, tokens, size] each."""


@dataclass
class Prefixes:
    """Caches by their tokens; what was used longest ago goes when they hold more than ``most`` tokens. 0 = keep none."""

    most: int
    held: int = 0
    _layers: OrderedDict[Ids, Layers] = field(default_factory=OrderedDict, repr=False)
    _lengths: Counter = field(default_factory=Counter, repr=False)

    def longest(self, ids: Ids) -> tuple[int, Layers]:
        """(tokens, their keys and values) of the longest start of ``ids`` that is known, its last token left out."""
        for length in sorted((n for n in self._lengths if n <= len(ids)), reverse=True):
            layers = self._layers.get(ids[:length])
            if layers is not None:
                self._layers.move_to_end(ids[:length])
                usable = min(length, len(ids) - 1)  # the last token is computed, for its logits
                return usable, [(k[:, :usable], v[:, :usable]) for k, v in layers]
        return 0, []

    def put(self, ids: Ids, layers: Layers) -> None:
        """Keep the cache of a prompt."""
        if ids in self._layers or len(ids) > self.most:
            return
        self._layers[ids] = layers
        self._lengths[len(ids)] += 1
        self.held += len(ids)
        while self.held > self.most:
            gone, _ = self._layers.popitem(last=False)
            self.held -= len(gone)
            self._lengths[len(gone)] -= 1
            if not self._lengths[len(gone)]:
                del self._lengths[len(gone)]

    def clear(self) -> None:
        """Forget all."""
        self._layers.clear()
        self._lengths.clear()
        self.held = 0


def stacked(rows: Sequence[tuple[int, Layers]], config: PretrainedConfig, like: torch.Tensor) -> tuple[DynamicCache, torch.Tensor]:
    """One cache of several prefixes, padded on the left, and its mask [B, longest]."""
    width = max(length for length, _ in rows)
    mask = torch.zeros((len(rows), width), dtype=torch.long, device=like.device)
    for i, (length, _) in enumerate(rows):
        mask[i, width - length:] = 1
    cache = DynamicCache(config=config)
    known = next(layers for length, layers in rows if length)
    for n, (k, v) in enumerate(known):
        keys, values = (t.new_zeros((len(rows), t.shape[0], width, t.shape[2])) for t in (k, v))
        for i, (length, layers) in enumerate(rows):
            if length:
                keys[i, :, width - length:], values[i, :, width - length:] = layers[n]
        cache.update(keys, values, n)
    return cache, mask


def taken(cache: DynamicCache, mask: torch.Tensor, row: int) -> Layers | None:
    """Keys and values of a row's own tokens; None where the model's cache does not keep them all."""
    if not all(_whole(layer, mask.shape[1]) for layer in cache.layers):
        return None
    own = mask[row].bool()
    return [(layer.keys[row][:, own], layer.values[row][:, own]) for layer in cache.layers]


def _whole(layer: Any, tokens: int) -> bool:
    """Whether a layer's cache holds all tokens: it has no window, or one that they have not filled."""
    return type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and tokens < layer.sliding_window)
