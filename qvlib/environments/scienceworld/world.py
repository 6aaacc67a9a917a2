"""ScienceWorld as a ``World``: its settings, its names, and what it is told of."""

from __future__ import annotations

from pathlib import Path

from qvlib.environments.scienceworld.environment import ScienceWorld, build
from qvlib.environments.scienceworld.experiments import write_experiments
from qvlib.environments.scienceworld.scientist import Scientist
from qvlib.environments.scienceworld.settings import ScienceWorldSettings
from qvlib.environments.scienceworld.tour import tour
from qvlib.environments.world import Names, World

INSTRUCTIONS = """\
You do an experiment in a house with several rooms. The task says what to reach.
Commands, one at a time: look around, inventory, task, go to a place, open, close, activate, \
deactivate, examine, read, pick up, eat or mix a thing, move, pour, dunk or connect a thing to \
another, use a thing on another, focus on a thing, wait.
Call things by their names, as in: open door to kitchen; move metal pot to stove; use thermometer \
in inventory on water. `focus on` says which thing the task is about: where the task asks for it, \
focus on nothing else."""

NAMES = Names(
    "variations",
    "raise game_count",
    "The first word of a command is its kind. Shallow pairs are about where to go and what to "
    "look for; deep ones about what to do with it, and in which order.",
)


def _built(settings: ScienceWorldSettings, folder: Path) -> ScienceWorld:
    return build(folder, max_steps=settings.max_steps, timeout_value=settings.timeout_value)


def _make_data(settings: ScienceWorldSettings, folder: Path, processes: int = 0) -> None:
    write_experiments(settings, folder)


def _demonstrator(environment: ScienceWorld, errors: float) -> Scientist:
    return Scientist(min(1.0, errors * Scientist.error))


WORLD = World(
    "scienceworld",
    ScienceWorldSettings,
    _built,
    INSTRUCTIONS,
    NAMES,
    make_data=_make_data,
    demonstrator=_demonstrator,
    tour=tour,
)
