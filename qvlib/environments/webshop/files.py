"""Finding and reading the official data files, with errors that name file, record and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.environments import datafiles
from qvlib.environments.datafiles import opened, parsed, sha256

__all__ = ["find", "mapping", "records", "sha256"]

RELEASE = (
    "the official WebShop data release "
    "(setup.sh of github.com/princeton-nlp/WebShop names its files)"
)
PATTERNS = {
    # what: (name patterns, required)
    "products": (("items_shuffle*.json", "products*.json"), True),
    "attributes": (("items_ins_v2*.json",), True),
    "human instructions": (("items_human_ins*.json",), False),
    "title nouns": (("title_nouns.json",), False),
}


def find(data_dir: str | Path, what: str) -> Path | None:
    """The one file of a kind in the folder; None if there is none and it is optional.

    Raises:
        QvlibError: no such folder, a required file missing, or several files of that kind.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        raise QvlibError(
            f"data_dir {str(folder)!r}: no such folder; unpack {RELEASE} and give its folder as "
            "data_dir"
        )
    patterns, required = PATTERNS[what]
    paths = sorted(
        {p for pattern in patterns for end in ("", ".gz") for p in folder.glob(pattern + end)}
    )
    if len(paths) > 1:
        names = ", ".join(p.name for p in paths)
        raise QvlibError(
            f"data_dir {str(folder)!r}: several files of {what}: {names}; keep the one to use there"
        )
    if not paths and required:
        raise QvlibError(
            f"data_dir {str(folder)!r}: no file of {what} ({' or '.join(patterns)}, plain or .gz); "
            f"fetch it from {RELEASE} into this folder, or give another data_dir"
        )
    return paths[0] if paths else None


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The products of a file, numbered, one at a time.

    Raises:
        QvlibError: unreadable, cut off, not JSON, or not a list of objects.
    """
    return datafiles.records(path, "products", f"give the products file of {RELEASE}")


def mapping(path: Path) -> dict[str, Any]:
    """A JSON object, whole.

    Raises:
        QvlibError: unreadable, cut off, not JSON, or not an object.
    """
    with opened(path) as text:
        value = parsed(text.read(), path, "the file")
    if not isinstance(value, dict):
        raise QvlibError(
            f"{path}: expected one JSON object with asins or titles as keys; "
            f"fetch the file from {RELEASE}"
        )
    return value
