"""Worlds of your own: ``environment: module:NAME`` names a ``World`` record, or a function.

The function, ``factory(settings)``, returns an object that meets ``qvlib.core.types.Environment``;
``settings`` is a ``WorldSettings``. The object may also have

- ``demonstrator()``: the scripted agent that a small agent is cloned from,
- ``data_hashes()``: file name -> hash of what it read; the module's own file is always counted,
- ``skipped``: how many tasks were left out.

A ``World`` says more: settings of its own, embedded data, names, a tour, kinds of actions
and places, a script, the parts of the reward. The module is looked for
where Python looks, then in the current folder and in the project's.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.imports import module
from qvlib.core.types import Environment
from qvlib.environments.world import World, WorldSettings

MEMBERS = ("name", "max_steps", "timeout_value", "tasks", "reset", "step", "accepts")


def world_at(path: str) -> World:
    """The world that ``module:NAME`` names; one is made around a function.

    Raises:
        QvlibError: no such module, or nothing in it of that name that makes environments.
    """
    name, _, attribute = path.partition(":")
    loaded, sha256 = module(path, "environment")
    value = getattr(loaded, attribute, None)
    if isinstance(value, World):
        world = value
    elif callable(value) and _takes_settings(value):
        world = World(path, WorldSettings, lambda settings, folder: value(settings))
    else:
        alone = " of the settings alone" if callable(value) else ""
        raise QvlibError(
            f"environment {path!r}: the module has no function {attribute!r}{alone}; "
            f"write `def {attribute}(settings)` that returns the environment"
        )
    return replace(
        world,
        build=functools.partial(_checked, path, world.build),
        sources={Path(loaded.__file__ or name).name: sha256},
    )


def _takes_settings(factory: Any) -> bool:
    """Whether a function can be called with the settings alone."""
    try:
        inspect.signature(factory).bind(None)
    except (TypeError, ValueError):  # the latter where it tells no signature
        return False
    return True


def _checked(path: str, build: Any, settings: WorldSettings, folder: Path) -> Environment:
    """What a world of your own builds.

    Raises:
        QvlibError: it is no environment, or not with the limits that were typed.
    """
    environment = build(settings, folder)
    missing = [member for member in MEMBERS if not hasattr(environment, member)]
    if missing:
        raise QvlibError(
            f"environment {path!r}: what it returned has no {', '.join(missing)}; "
            "see qvlib.core.types.Environment"
        )
    for name in ("max_steps", "timeout_value"):
        given, own = getattr(settings, name), getattr(environment, name)
        if name in settings.model_fields_set and given != own:
            raise QvlibError(
                f"environment {path!r} was given {name} = {given!r} and has {own!r}; let it take "
                f"settings.{name}, or leave {name} out"
            )
    return environment
