"""Several actions after one prompt in one row of a pass: [prompt | action | action | ...]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qvlib.models.nucleus import Ids

PADDING = 2**30  # the part of what is beyond a row's end


@dataclass(frozen=True)
class Packed:
    """Rows of a padded pass, [B, T] each: the prompt is computed once, actions do not see another.

    ids: tokens. place: position of each, an action's counted from the end of its prompt. part: 0 of
    the prompt, k of the k-th action, ``PADDING`` beyond the end. before: where in its row the token
    stands that comes before one of an action.
    """

    ids: torch.Tensor
    place: torch.Tensor
    part: torch.Tensor
    before: torch.Tensor

    def mask(self, dtype: torch.dtype) -> torch.Tensor:
        """[B, 1, T, T], to be added to attention: 0 where a token sees another, else the least."""
        width = self.ids.shape[1]
        seen = torch.ones(width, width, dtype=torch.bool).tril() & (
            (self.part[:, None] == 0) | (self.part[:, None] == self.part[..., None])
        )
        return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[
            :, None
        ]


def packed(rows: Sequence[tuple[Ids, Sequence[Ids]]], pad: int) -> Packed:
    """Rows of (prompt, its actions), padded on the right with the token ``pad``."""
    width = max(size(prompt, actions) for prompt, actions in rows)
    shape = (len(rows), width)
    ids, place = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    part, before = torch.full(shape, PADDING), torch.zeros(shape, dtype=torch.long)
    for i, (prompt, actions) in enumerate(rows):
        p = len(prompt)
        ids[i, :p], place[i, :p], part[i, :p] = torch.tensor(prompt), torch.arange(p), 0
        start = p
        for k, action in enumerate(actions, start=1):
            end = start + len(action)
            ids[i, start:end] = torch.tensor(action)
            place[i, start:end] = torch.arange(p, p + len(action))
            part[i, start:end] = k
            before[i, start:end] = torch.tensor([p - 1, *range(start, end - 1)])
            start = end
    return Packed(ids, place, part, before)


def size(prompt: Ids, actions: Sequence[Ids]) -> int:
    """Tokens of a row."""
    return len(prompt) + sum(map(len, actions))
