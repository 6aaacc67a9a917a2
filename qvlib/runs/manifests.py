"""The form of a stage's manifest: which keys it has, and what may stand there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def is_number(value: Any) -> bool:
    """Whether a value read from JSON is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


_KINDS: dict[str, Callable[[Any], bool]] = {
    # key of a manifest: whether a value may be its
    "stage": lambda value: isinstance(value, str),
    "digest": lambda value: isinstance(value, str),
    "status": lambda value: value in ("running", "complete"),
    "started": lambda value: isinstance(value, str),
    "finished": lambda value: value is None or isinstance(value, str),
    "seconds": lambda value: is_number(value) and value >= 0,
    "sessions": lambda value: type(value) is int,
    "facts": lambda value: isinstance(value, dict),
    "data_hashes": lambda value: value is None or isinstance(value, dict),
    "decided_by": lambda value: (
        isinstance(value, dict) and all(isinstance(fields, dict) for fields in value.values())
    ),
    "parameters": lambda value: isinstance(value, dict),
}
_KINDS_MAYBE: dict[str, Callable[[Any], bool]] = {
    # of one that was begun, or finished
    "session_started": is_number,
    "machine": lambda value: isinstance(value, dict) and isinstance(value.get("device"), str),
    "peak_memory_gib": lambda value: (
        isinstance(value, dict) and all(map(is_number, value.values()))
    ),
    "part_seconds": lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
    "files": lambda value: (
        isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    ),
    "earlier": lambda value: isinstance(value, list),
}


def ill_typed(manifest: Any) -> str | None:
    """What is wrong with the form of a manifest, in a few words."""
    if not isinstance(manifest, dict):
        return "no object"
    for key in _KINDS:
        if key not in manifest:
            return f"no {key!r}"
    for key, fits in {**_KINDS, **_KINDS_MAYBE}.items():
        if key in manifest and not fits(manifest[key]):
            return f"{key!r} is {manifest[key]!r:.60}"
    return None
