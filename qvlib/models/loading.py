"""Models by name, with the prompts that fit them: from a folder, the hub or a chat server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from qvlib.base.errors import QvlibError
from qvlib.core.types import State
from qvlib.models.chat import PLAIN, Chat
from qvlib.models.local import LocalModel, one_line, quiet
from qvlib.models.names import SERVED, files_of
from qvlib.models.precision import in_own_precision
from qvlib.models.prompts import ACT, compact

if TYPE_CHECKING:
    from qvlib.models.remote import RemoteModel

ChatStyle = Callable[[Any], Chat]
"""tokenizer -> how its model is talked to; called only for models that are."""


def load_model(
    name: str | Path,
    *,
    chat: ChatStyle,
    dtype: str = "float32",
    device: str = "cpu",
    max_action_tokens: int = 24,
    cache_tokens: int = 0,
) -> LocalModel:
    """A local model by name, with the prompt style that fits it.

    name: as ``qvlib.models.names.kind_of`` reads it; ``small`` and ``api:MODEL`` are no local
        model.
    A conversation is cut to what the model reads less ``max_action_tokens``.

    Raises:
        QvlibError: nothing of that name gives a causal model with a tokenizer.
    """
    lm = load_folder(
        files_of(name),
        dtype=dtype,
        device=device,
        max_action_tokens=max_action_tokens,
        cache_tokens=cache_tokens,
        style=lambda tokenizer: prompt_style(tokenizer, chat),
    )
    longest = lm.context - max_action_tokens
    if isinstance(lm.style, Chat) and lm.style.budget > longest:  # the model reads no more
        lm.style = replace(lm.style, budget=max(1, int(longest)))
    return lm


def prompt_style(tokenizer: Any, chat: ChatStyle) -> Callable[[State], Any]:
    """How a model is prompted, by its tokenizer.

    As a chat by its template; without one in the compact style, if it was cloned so, else as a
    plain chat.
    """
    if not tokenizer.chat_template:
        if ACT in tokenizer.get_vocab():
            return compact
        tokenizer.chat_template = PLAIN
    return chat(tokenizer)


def remote_model(
    name: str,
    *,
    chat: ChatStyle,
    max_action_tokens: int = 24,
    extra: Mapping[str, Any] | None = None,
    **client: Any,
) -> RemoteModel:
    """The model ``api:MODEL`` behind a chat server.

    extra: as ``qvlib.models.api.ApiAgent`` takes it. client: what ``ApiClient`` takes; one is for
    all agents of a process, so that its limit of requests holds.

    Raises:
        QvlibError: an argument of the client is none of its values.
    """
    from qvlib.models.api_client import ApiClient
    from qvlib.models.remote import RemoteModel

    return RemoteModel(
        ApiClient(name.removeprefix(SERVED), **client), chat(None), max_action_tokens, extra or {}
    )


def load_folder(
    folder: str | Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    style: Callable[[Any], Callable[[State], Any]] | None = None,
    **options: Any,
) -> LocalModel:
    """A causal model and its tokenizer from a folder or hub name.

    style: tokenizer -> prompt style; without it the compact one. options: of ``LocalModel``.

    Raises:
        QvlibError: no such folder or hub model, or no tokenizer in it.
    """
    if not Path(folder).is_dir() and _means_folder(folder):
        raise QvlibError(
            f"{folder}: no such folder; give a folder with a model and its tokenizer, or a hub name"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise QvlibError(
            f"{folder}: no tokenizer could be read; save one beside the model with "
            f"tokenizer.save_pretrained ({one_line(error)})"
        ) from None
    try:
        with quiet():
            model = in_own_precision(
                AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device)
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise QvlibError(
            f"{folder}: no causal language model could be read ({one_line(error)})"
        ) from None
    if tokenizer.eos_token_id is None:
        raise QvlibError(
            f"{folder}: its tokenizer has no end-of-sequence token; set eos_token and save it again"
        )
    return LocalModel(model, tokenizer, style(tokenizer) if style else compact, **options)


def _means_folder(name: str | Path) -> bool:
    """Can it not be a hub name? The hub would be asked again and again for most of a minute."""
    return (
        isinstance(name, Path)
        or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)
        or ("/" in name and Path(name).parent.is_dir())
    )
