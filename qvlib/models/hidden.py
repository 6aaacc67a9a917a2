"""A causal model's last hidden states in the place of its logits: what heads and features read."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from qvlib.base.errors import QvlibError
from qvlib.models import packing
from qvlib.models.local import Ids, LocalModel
from qvlib.models.training import padded

Row = tuple[Ids, Ids]
"""(prompt, action as a reply, end token included)."""


class Headless(torch.nn.Module):
    """A causal model without its output layer: its ``logits`` are hidden states, [B, T, D].

    It shares the model's weights, and is asked like a model by ``LocalModel`` (prompts are computed
    once, their keys and values kept).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        if model.base_model is model:
            raise QvlibError(
                f"{type(model).__name__} has no base model that gives hidden states; name another "
                "model for value heads and features"
            )
        self.model = model
        self.config, self.generation_config = model.config, model.generation_config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def width(self) -> int:
        """D, the size of a hidden state."""
        return int(self.config.get_text_config().hidden_size)

    def num_parameters(self) -> int:
        return self.model.num_parameters()

    def get_output_embeddings(self) -> Any:
        """What ``LocalModel`` asks how wide a row of ``logits`` is."""
        return SimpleNamespace(weight=torch.empty(self.width, 0))

    def forward(self, *, logits_to_keep: int = 0, **inputs: Any) -> CausalLMOutputWithPast:
        out = self.model.base_model(**inputs)
        hidden = out.last_hidden_state
        if logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        return CausalLMOutputWithPast(logits=hidden, past_key_values=out.past_key_values)


def headless(lm: LocalModel, model: PreTrainedModel | None = None) -> LocalModel:
    """The same prompts, hidden states in the place of logits; ``model``: with these weights."""
    return lm.tuned(Headless(lm.model if model is None else model))  # type: ignore[arg-type]


def last_hidden(model: torch.nn.Module, rows: Sequence[Row], pad: int) -> torch.Tensor:
    """The hidden state after the last token of each action, [B, D], with gradients.

    The one that predicts the end token: all of the action is read. ``model``: a ``Headless``.
    Padding is on the right. Of an action that is the end token alone it is the prompt's last.
    """
    return hidden_around(model, rows, pad)[:, 1]


def hidden_around(model: torch.nn.Module, rows: Sequence[Row], pad: int) -> torch.Tensor:
    """The hidden states after the last token of each prompt and of its action, [B, 2, D]."""
    device = next(model.parameters()).device
    ids, _, attention = padded([(p + a, [False] * len(p + a)) for p, a in rows], pad, device)
    ends = [[len(p) - 1, len(p) + len(a) - 2] for p, a in rows]
    hidden = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
    places = torch.tensor(ends, device=device)
    return hidden[torch.arange(len(rows), device=device)[:, None], places]


def packed_hidden(
    model: torch.nn.Module, groups: Sequence[tuple[Ids, Sequence[Ids]]], pad: int
) -> torch.Tensor:
    """``last_hidden`` of (prompt, its actions), [all actions in order, D]: a prompt a row.

    For models that can have actions beside each other in a row (``estimators.data.packs``).
    """
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    rows = packing.packed(groups, pad)
    hidden = model(
        input_ids=rows.ids.to(device),
        attention_mask=rows.mask(dtype).to(device),
        position_ids=rows.place.to(device),
        use_cache=False,
    ).logits
    at, places = [], []
    for i, (prompt, actions) in enumerate(groups):
        end = len(prompt)
        for action in actions:
            end += len(action)
            at.append(i)
            places.append(int(rows.before[i, end - 1]))
    return hidden[torch.tensor(at, device=device), torch.tensor(places, device=device)]


def read_hidden(lm: LocalModel, rows: Sequence[Row]) -> torch.Tensor:
    """``last_hidden`` of a ``headless`` model without gradients, [rows, D], float64, on the CPU.

    A prompt that rows share is computed once.
    """
    known: dict[Row, torch.Tensor] = {}
    for batch in lm.batches(dict.fromkeys(rows)):
        hidden = lm.reply_logits(batch)
        known |= {row: hidden[i, len(row[1]) - 1].cpu() for i, row in enumerate(batch)}
    return torch.stack([known[row] for row in rows])
