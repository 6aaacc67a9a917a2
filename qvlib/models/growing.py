"""Keys and values with room for more, so that a further token copies nothing that is there.

transformers' ``DynamicLayer`` copies all keys and values of a batch at each token, and again where
rows part or end. ``qvlib bench scoring`` measures what sampling takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers.cache_utils import DynamicLayer

from qvlib.models.prefixes import joinable


class Growing(DynamicLayer):
    """A layer's keys and values, written into buffers [rows, heads, tokens, size] made beforehand.

    ``keys`` and ``values`` show what is filled. Neither rows nor tokens beyond the buffers' can be
    written.
    """

    def __init__(self, layer: DynamicLayer, parents: torch.Tensor, rows: int, room: int) -> None:
        """Row i is the given layer's row ``parents[i]``; up to ``rows``, ``room`` more tokens."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self._buffers = [_widened(x, parents, rows, room) for x in (layer.keys, layer.values)]
        self._show(len(parents), layer.keys.shape[-2])

    def _show(self, rows: int, tokens: int) -> None:
        self.keys, self.values = (buffer[:rows, :, :tokens] for buffer in self._buffers)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens at the end of each row; all keys and values [rows, heads, tokens, size]."""
        rows, _, start, _ = self.keys.shape
        end = start + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, start:end] = new
        self._show(rows, end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i becomes what row ``beam_idx[i]`` was; rows that stay are not touched."""
        moved = (beam_idx != torch.arange(len(beam_idx), device=beam_idx.device)).nonzero()[:, 0]
        tokens = self.keys.shape[-2]
        if len(moved):
            for buffer in self._buffers:
                filled = buffer[:, :, :tokens]
                filled.index_copy_(0, moved, filled.index_select(0, beam_idx[moved]))
        self._show(len(beam_idx), tokens)


def _widened(x: torch.Tensor, parents: torch.Tensor, rows: int, room: int) -> torch.Tensor:
    """Rows ``parents`` of [B, heads, tokens, size], written once, in a buffer of ``rows``."""
    wide = F.pad(x, (0, 0, 0, room))
    buffer = x.new_empty(rows, *wide.shape[1:])
    torch.index_select(wide, 0, parents, out=buffer[: len(parents)])
    return buffer


def with_room(cache: Any, parents: torch.Tensor, rows: int, room: int) -> None:
    """Make a model's cache that of its rows ``parents`` [n], which may become ``rows``.

    room: most tokens that will be added. A cache that is not ``joinable`` is reordered alone.
    """
    if not joinable(cache):
        cache.reorder_cache(parents)
        return
    for i, layer in enumerate(cache.layers):
        cache.layers[i] = Growing(layer, parents, rows, room)


def in_place(parents: Sequence[int]) -> list[int]:
    """In which order children come, so that as many as can take their parent's row.

    parents: the row of each child's parent. Gives the child of each row.
    """
    first: dict[int, int] = {}
    for child, parent in enumerate(parents):
        if parent < len(parents):
            first.setdefault(parent, child)
    stay = set(first.values())
    others = (child for child in range(len(parents)) if child not in stay)
    return [first[row] if row in first else next(others) for row in range(len(parents))]
