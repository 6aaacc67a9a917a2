"""The calls of a pipeline that carries its parameters in one flat list, built on ``world_of``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvlib.core.types import Agent, Environment, Task
from qvlib.environments import world as worlds
from qvlib.environments.tours import Tour
from qvlib.environments.world import Names, World, WorldSettings

if TYPE_CHECKING:
    import pandas as pd


def world_and_settings(params: Any) -> tuple[World, WorldSettings]:
    """The world of a run and its settings."""
    from qvlib.environments import world_of

    world = world_of(params.environment)
    given = {
        name: getattr(params, name) for name in world.settings.names() if hasattr(params, name)
    }
    return world, world.settings(**given)


def make(params: Any, embedded: Path) -> Environment:
    """The environment of a run; ``embedded`` is used where ``data_dir`` is empty."""
    return worlds.make_environment(*world_and_settings(params), embedded)


def make_data(params: Any, folder: Path) -> None:
    """Write the embedded data of the environment into ``folder``; one of your own has none."""
    world, settings = world_and_settings(params)
    if world.make_data is not None:
        world.make_data(settings, folder, params.processes)


def data_hashes(params: Any, environment: Environment) -> dict[str, str]:
    """File name -> sha256 of all that the environment was made of, for manifests."""
    return worlds.data_hashes(world_and_settings(params)[0], environment)


def instructions(params: Any) -> str:
    """What a model that was not trained on the environment is told of it."""
    return world_and_settings(params)[0].instructions


def demonstrator(params: Any, environment: Environment) -> Agent:
    """The scripted agent, which errs as often as ``demonstrator_errors`` says."""
    world, _ = world_and_settings(params)
    return worlds.demonstrator(world, environment, params.demonstrator_errors)


def has_demonstrator(params: Any, environment: Environment) -> bool:
    """Whether ``demonstrator`` gives one."""
    return worlds.has_demonstrator(world_and_settings(params)[0], environment)


def tour(params: Any, environment: Environment, task: Task) -> Tour:
    """A first look at a task."""
    return worlds.tour_of(world_and_settings(params)[0], environment, task)


def failures(params: Any) -> tuple[Callable[..., pd.DataFrame], str] | None:
    """Where test episodes fail, where the world tells it."""
    return world_and_settings(params)[0].failures


def words(params: Any) -> Names:
    """The names of a run's world."""
    return worlds.names_of(*world_and_settings(params))
