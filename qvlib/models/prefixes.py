"""Key-value caches of prompts that were computed, for prompts that start with them.

A conversation that only grows at its end pays for each of its tokens once: over the steps of an
episode, over the levels of a tree, and over all tasks for the instructions they share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from cachetools import LRUCache
from torch.nn import functional as F
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

Ids = tuple[int, ...]
Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, [heads, tokens, size] each."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a prompt adds to the known one that it starts with.

    start, end: keys and values are those of its tokens from ``start`` to ``end``.
    """

    start: int
    end: int
    layers: Layers


class _Memory(LRUCache):
    """Pieces by the prompt that they complete; ``lengths`` counts the prompts of each length."""

    def __init__(self, most: int) -> None:
        super().__init__(most, getsizeof=lambda kept: kept.end - kept.start)
        self.lengths: Counter[int] = Counter()

    def __setitem__(self, ids: Ids, kept: Kept) -> None:
        super().__setitem__(ids, kept)
        self.lengths[len(ids)] += 1

    def __delitem__(self, ids: Ids) -> None:
        super().__delitem__(ids)
        self.lengths[len(ids)] -= 1
        if not self.lengths[len(ids)]:
            del self.lengths[len(ids)]

    def clear(self) -> None:
        super().clear()
        self.lengths.clear()


class Prefixes:
    """Caches by their tokens, each token's held once.

    A prompt is kept as what it adds to a known one. What was used longest ago goes when they hold
    more than ``most`` tokens; 0 = keep none. A prompt is used with all that it starts with, so that
    those are never older than it and nothing loses its start.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept = _Memory(most)

    @property
    def held(self) -> int:
        """Tokens whose keys and values are kept."""
        return self._kept.currsize

    def known(self, ids: Ids) -> int:
        """Tokens of the longest start of ``ids`` that is known.

        Its last token is left out: that is computed, for its logits.
        """
        return min(len(self._longest(ids)), len(ids) - 1)

    def longest(self, ids: Ids) -> tuple[int, list[Layers]]:
        """(``known`` tokens, their keys and values in consecutive pieces)."""
        start = self._longest(ids)
        usable = min(len(start), len(ids) - 1)
        pieces = [
            [(k[:, : usable - kept.start], v[:, : usable - kept.start]) for k, v in kept.layers]
            for kept in self._chain(start)
            if kept.start < usable
        ]
        return usable, pieces[::-1]

    def put(self, ids: Ids, start: int, layers: Layers) -> None:
        """Keep a prompt's keys and values from ``start`` on; what is before is known or nothing."""
        if ids in self._kept or len(ids) > self.most or (start and ids[:start] not in self._kept):
            return
        self._use(ids[:start])  # so that it does not go to make room
        self._kept[ids] = Kept(start, len(ids), layers)
        self._use(ids)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def _longest(self, ids: Ids) -> Ids:
        lengths = sorted((n for n in self._kept.lengths if n <= len(ids)), reverse=True)
        return next((ids[:n] for n in lengths if ids[:n] in self._kept), ())

    def _use(self, ids: Ids) -> None:
        """Note that a known prompt is used now, and all that it starts with after it."""
        for _ in self._chain(ids):
            pass

    def _chain(self, ids: Ids) -> Iterator[Kept]:
        """A known prompt's piece, that of the one it starts with, and so on.

        All are used now, the first one last of all.
        """
        while ids:
            kept = self._kept[ids]
            yield kept
            ids = ids[: kept.start]


def stacked(
    rows: Sequence[tuple[int, list[Layers]]], config: PretrainedConfig, like: torch.Tensor
) -> tuple[DynamicCache, torch.Tensor]:
    """One cache of several prefixes in pieces, padded on the left, and its mask [B, longest]."""
    width = max(length for length, _ in rows)
    mask = torch.zeros((len(rows), width), dtype=torch.long, device=like.device)
    for i, (length, _) in enumerate(rows):
        mask[i, width - length :] = 1
    cache = DynamicCache(config=config)
    known = next(pieces[0] for length, pieces in rows if length)
    for n, (k, v) in enumerate(known):
        keys, values = (t.new_zeros((len(rows), t.shape[0], width, t.shape[2])) for t in (k, v))
        for i, (length, pieces) in enumerate(rows):
            at = width - length
            for piece in pieces:
                k, v = piece[n]
                keys[i, :, at : at + k.shape[1]], values[i, :, at : at + k.shape[1]] = k, v
                at += k.shape[1]
        cache.update(keys, values, n)
    return cache, mask


def taken(cache: DynamicCache, row: int, new: int, width: int) -> Layers | None:
    """Copies of keys and values of a row's last ``new`` tokens of ``width``.

    None where the model's cache does not keep all.
    """
    if not whole(cache, width):
        return None
    return [
        (layer.keys[row, :, -new:].clone(), layer.values[row, :, -new:].clone())
        for layer in cache.layers
    ]


def joined(
    parts: Sequence[tuple[torch.Tensor, Any, torch.Tensor]],
) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """(logits [B, 1, V], cache, mask [B, T]) of several batches as those of one.

    They are padded on the left; the caches must be ``joinable``.
    """
    logits, caches, masks = zip(*parts, strict=True)
    width = max(mask.shape[1] for mask in masks)
    cache = caches[0]
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        for name in ("keys", "values"):
            rows = [
                F.pad(getattr(layer, name), (0, 0, width - mask.shape[1], 0))
                for layer, mask in zip(layers, masks, strict=True)
            ]
            setattr(layers[0], name, torch.cat(rows))
    return (
        torch.cat(logits),
        cache,
        torch.cat([F.pad(mask, (width - mask.shape[1], 0)) for mask in masks]),
    )


def whole(cache: Any, tokens: int) -> bool:
    """Whether a model's cache holds the keys and values of all tokens.

    No layer has a window that they have filled.
    """
    return all(
        type(layer) is DynamicLayer
        or (type(layer) is DynamicSlidingWindowLayer and tokens < layer.sliding_window)
        for layer in cache.layers
    )


def joinable(cache: Any) -> bool:
    """Whether a model's cache is keys and values alone, so that others can be put beside it."""
    return all(type(layer) is DynamicLayer and layer.is_initialized for layer in cache.layers)
