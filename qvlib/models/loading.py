"""Models by name, with the prompts that fit them: from a folder, the hub or a chat server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from qvlib.base.errors import QvlibError, one_line
from qvlib.base.files import is_pointer
from qvlib.core.types import State
from qvlib.models import templates
from qvlib.models.chat import Chat
from qvlib.models.exactness import check_scores
from qvlib.models.local import LocalModel, quiet
from qvlib.models.names import SERVED, files_of
from qvlib.models.precision import in_own_precision
from qvlib.models.prompts import ACT, as_cloned
from qvlib.models.replies import ACTION

if TYPE_CHECKING:
    from qvlib.models.remote import RemoteModel

# What transformers and what it is made of raise for files that are not what they say.
_BROKEN = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    ImportError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)

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
    trust_remote_code: bool = False,
    pickled_weights: bool = False,
) -> LocalModel:
    """A local model by name, with the prompt style that fits it.

    name: as ``qvlib.models.names.kind_of`` reads it; ``small`` and ``api:MODEL`` are no local
        model.
    trust_remote_code, pickled_weights: as ``load_folder`` takes them.
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
        trust_remote_code=trust_remote_code,
        pickled_weights=pickled_weights,
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
    if not tokenizer.chat_template and ACT in tokenizer.get_vocab():
        return as_cloned(tokenizer)
    templates.prepare(tokenizer)
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
    trust_remote_code: bool = False,
    pickled_weights: bool = False,
    **options: Any,
) -> LocalModel:
    """A causal model and its tokenizer from a folder or hub name.

    style: tokenizer -> prompt style; without it the compact one. options: of ``LocalModel``.
    trust_remote_code: run code that the model brings (``auto_map``). pickled_weights: read weights
        from ``pytorch_model.bin`` where there are no safetensors.

    Raises:
        QvlibError: no such folder or hub model, no tokenizer in it, weights that are missing or not
            finite, or a model that cannot be sampled and scored exactly.
    """
    if not Path(folder).is_dir() and _means_folder(folder):
        raise QvlibError(
            f"{folder}: no such folder; give a folder with a model and its tokenizer, or a hub name"
        )
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except _BROKEN as error:
        _refuse_code(folder, error)
        _refuse_part(folder)
        raise QvlibError(
            f"{folder}: no tokenizer could be read; save one beside the model with "
            f"tokenizer.save_pretrained ({one_line(error)})"
        ) from None
    try:
        with quiet():
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                trust_remote_code=trust_remote_code,
                use_safetensors=None if pickled_weights else True,
                output_loading_info=True,
            )
    except _BROKEN as error:
        _refuse_code(folder, error)
        _refuse_part(folder)
        if not pickled_weights and _is_pickled(folder, error):
            raise QvlibError(
                f"{folder}: its weights are pickles (pytorch_model.bin), which can hold code; save "
                "them as safetensors, or set pickled_weights: true if you know where they are from"
            ) from None
        raise QvlibError(
            f"{folder}: no causal language model could be read ({one_line(error)})"
        ) from None
    _check_weights(folder, model, found)
    model = in_own_precision(model.to(device))
    if tokenizer.eos_token_id is None:
        raise QvlibError(
            f"{folder}: its tokenizer has no end-of-sequence token; set eos_token and save it again"
        )
    _check_tokens(folder, model, tokenizer)
    made = style(tokenizer) if style else as_cloned(tokenizer)
    if isinstance(made, Chat):
        templates.check(tokenizer, folder, "" if made.thoughts else ACTION)
    lm = LocalModel(model, tokenizer, made, **options)
    check_scores(lm, folder)
    return lm


def _refuse_code(folder: str | Path, error: Exception) -> None:
    if "trust_remote_code" in str(error):
        raise QvlibError(
            f"{folder}: it brings code of its own (auto_map), which is not run; read it, then set "
            "trust_remote_code: true to run it, or use a model that transformers knows"
        ) from None


def _refuse_part(folder: str | Path) -> None:
    """Name what a folder holds in the place of a model: an adapter, or pointers to its files."""
    here = Path(folder)
    adapter = here / "adapter_config.json"
    if adapter.is_file() and not (here / "config.json").exists():
        base = re.search(
            r'"base_model_name_or_path":\s*"(.+?)"', adapter.read_text("utf-8", "replace")
        )
        raise QvlibError(
            f"{folder}: it holds an adapter{f' of {base[1]:.60}' if base else ''}, no model; merge "
            "it into that by peft and save the whole with its tokenizer"
        )
    for file in sorted(here.glob("*")):
        if is_pointer(file):
            raise QvlibError(
                f"{folder}: {file.name} is a pointer of Git LFS, not the file; fetch it by `git "
                "lfs pull` there"
            )


def _is_pickled(folder: str | Path, error: Exception) -> bool:
    if Path(folder).is_dir():
        return any(Path(folder).glob("pytorch_model*.bin"))
    return "safetensors" in str(error)  # a repository on the hub without any


def _check_weights(folder: str | Path, model: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Refuse weights that were made up, left over from other layers, or are no numbers."""
    missing = sorted(found["missing_keys"])
    if missing:
        raise QvlibError(
            f"{folder}: {len(missing)} of its weights are missing, such as {missing[0]}; its "
            "config.json or its index tells of others than its files hold; fetch it again whole"
        )
    own = {_nameless(name) for name in model.state_dict()}
    left = sorted(name for name in found["unexpected_keys"] if _nameless(name) in own)
    if left:
        raise QvlibError(
            f"{folder}: its files hold {len(left)} weights of layers that its config.json does not "
            f"have, such as {left[0]}; fetch it again whole"
        )
    for name, weights in model.state_dict().items():
        if weights.is_floating_point() and not bool(weights.isfinite().all()):
            raise QvlibError(
                f"{folder}: {name} holds numbers that are not finite; its training diverged or its "
                "file is damaged: fetch or train it again"
            )


def _nameless(name: str) -> str:
    """The name of a weight without the number of its layer."""
    return re.sub(r"\.\d+\.", ".N.", name)


def _check_tokens(folder: str | Path, model: PreTrainedModel, tokenizer: Any) -> None:
    """Refuse a tokenizer with tokens that the model has no embeddings for."""
    rows = model.get_input_embeddings().weight.shape[0]
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= rows:
        raise QvlibError(
            f"{folder}: its tokenizer gives {token!r:.60} the id {last}, and the model has "
            f"{rows} embeddings; take the tokenizer that belongs to it, or resize_token_embeddings"
        )


def _means_folder(name: str | Path) -> bool:
    """Can it not be a hub name? The hub would be asked again and again for most of a minute."""
    return (
        isinstance(name, Path)
        or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)
        or ("/" in name and Path(name).parent.is_dir())
    )
