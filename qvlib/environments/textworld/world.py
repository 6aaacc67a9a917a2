"""TextWorld as a ``World``: its settings, its names, and what it is told of."""

from __future__ import annotations

from pathlib import Path

from qvlib.environments.textworld.environment import TextWorld, build
from qvlib.environments.textworld.generator import write_games
from qvlib.environments.textworld.player import Player
from qvlib.environments.textworld.script import Script
from qvlib.environments.textworld.settings import TextWorldSettings
from qvlib.environments.textworld.tour import tour
from qvlib.environments.world import Names, World, common

INSTRUCTIONS = """\
You play a text game. The task says how it is won.
Commands, one at a time: look, inventory, go north (south, east, west), open, close or examine a \
thing, take a thing, take a thing from another, put a thing on another, insert a thing into \
another, drop a thing, unlock a thing with a key; in kitchens also cook a food with an oven, stove \
or BBQ, slice, chop or dice a food with a knife, prepare meal, eat meal.
Call things by their full names, as the game does."""

NAMES = Names(
    "games",
    "raise game_count",
    "The first word of a command is its kind. Shallow pairs are about where to go and what to "
    "look at first; deep ones about what to do with the things that were found.",
)


def _built(settings: TextWorldSettings, folder: Path) -> TextWorld:
    return build(
        folder,
        **common(settings),
        in_order=not settings.data_dir,  # generated games are of a kind
    )


def _demonstrator(environment: TextWorld, errors: float) -> Player:
    return Player(environment, min(1.0, errors * Player.error))


WORLD = World(
    "textworld",
    TextWorldSettings,
    _built,
    INSTRUCTIONS,
    NAMES,
    make_data=write_games,
    demonstrator=_demonstrator,
    tour=tour,
    script=Script,
)
