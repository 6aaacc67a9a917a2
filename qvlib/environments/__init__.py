"""Worlds that meet the ``Environment`` protocol: the one list of them, by name."""

from __future__ import annotations

import difflib
import importlib
import re

from qvlib.base.errors import QvlibError
from qvlib.environments import own
from qvlib.environments.tours import Tour
from qvlib.environments.world import (
    Names,
    World,
    WorldSettings,
    data_hashes,
    demonstrator,
    has_demonstrator,
    make_environment,
    names_of,
    tour_of,
)

__all__ = [
    "WORLDS",
    "Names",
    "Tour",
    "World",
    "WorldSettings",
    "data_hashes",
    "demonstrator",
    "has_demonstrator",
    "make_environment",
    "names_of",
    "tour_of",
    "world_of",
]

WORLDS = {
    "webshop": "qvlib.environments.webshop:WORLD",
    "hotpotqa": "qvlib.environments.hotpotqa:WORLD",
    "textworld": "qvlib.environments.textworld:WORLD",
    "scienceworld": "qvlib.environments.scienceworld:WORLD",
}
"""Name -> module:record, imported when it is asked for."""

_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def world_of(name: str) -> World:
    """The world of a name in ``WORLDS``, or of your own: ``module:WORLD`` or ``module:factory``.

    Raises:
        QvlibError: no such world, module or record.
    """
    if name in WORLDS:
        module, _, record = WORLDS[name].partition(":")
        return getattr(importlib.import_module(module), record)
    if not _PATH.fullmatch(name):
        near = difflib.get_close_matches(name, WORLDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(WORLDS)}"
        raise QvlibError(
            f"environment {name!r}: no such name ({hint}); "
            "one of your own is named module:WORLD or module:factory"
        )
    return own.world_at(name)
