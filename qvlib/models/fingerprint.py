"""What a model's files hold, in a few hex digits: other weights are another model."""

from __future__ import annotations

import functools
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import resolve
from qvlib.models.gguf import cache_folder
from qvlib.models.names import kind_of

# What transformers reads of a folder: configuration, weights, tokenizer, template, code.
READ = frozenset(
    (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".tiktoken", ".gguf", ".py")
)
LARGE = 2**28  # bytes of a file whose hash is noted: to read it takes a noticeable while


def fingerprint(name: str | Path) -> str | None:
    """Sixteen hex digits of the files of a folder or of a GGUF file.

    None for what has none here: models by name, behind servers, or not there. A file is read again
    only where its size, times or inode have changed; of a large one other processes know that too,
    by a note in ``cache_folder``.
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
def _hash(file: str, size: int, *times: int) -> bytes:
    """The hash of a file that is as told: read, or of a large one as noted before."""
    stamp = hashlib.blake2b(repr((file, size, times)).encode(), digest_size=8).hexdigest()
    note = cache_folder() / "hashes" / stamp
    if size >= LARGE:
        with suppress(OSError, ValueError):  # none yet, or no hash
            known = bytes.fromhex(note.read_text())
            if len(known) == 16:
                return known
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).digest()
    if size >= LARGE:
        with suppress(QvlibError):  # of a folder that cannot be written: hashed again next time
            write_atomic(note, digest.hex())
    return digest
