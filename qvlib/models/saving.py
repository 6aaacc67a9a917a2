"""Models written to disk: a full one is told in one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path

WRITERS = ("(os error ", "PytorchStreamWriter")  # in what Rust's and torch's say


@contextmanager
def saving(folder: str | Path) -> Iterator[None]:
    """What writers of weights, optimizers and tokenizers say of a full disk becomes QvlibError."""
    try:
        yield
    except Exception as error:  # those of Rust and C++ have types of their own, or none
        if not isinstance(error, OSError) and not any(words in str(error) for words in WRITERS):
            raise
        raise _not_saved(folder, error) from None


def _not_saved(folder: str | Path, error: Exception) -> QvlibError:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, shutil.Error):  # of a copied folder: (from, to, why) of each file
        why = str(error.args[0][0][2])
    elif isinstance(error, OSError) and error.strerror:
        why = error.strerror
    return QvlibError(
        f"{display_path(folder)} cannot be written: {why:.100}; make room and run again, "
        "everything finished is kept"
    )
