"""What a model's files hold, in a few hex digits: other weights are another model."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from qvlib.base.paths import resolve
from qvlib.models.names import kind_of

# What transformers reads of a folder: configuration, weights, tokenizer, template, code.
READ = frozenset(
    (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".tiktoken", ".gguf", ".py")
)


def fingerprint(name: str | Path) -> str | None:
    """Sixteen hex digits of the files of a folder or of a GGUF file.

    None for what has none here: models by name, behind servers, or not there. A file is read again
    only where its size, times or inode have changed.
    """
    if kind_of(name) not in ("named", "gguf"):
        return None
    path = resolve(name)
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    read = [file for file in files if file.suffix in READ and file.is_file()]
    if not read:
        return None
    together = hashlib.blake2b(digest_size=8)
    for file in read:
        known = os.stat(file)
        together.update(file.name.encode() + b"\0")
        together.update(
            _hash(str(file), known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino)
        )
    return together.hexdigest()


@functools.lru_cache(1024)
def _hash(file: str, *_: int) -> bytes:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).digest()
