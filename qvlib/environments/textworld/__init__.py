"""TextWorld (Côté et al. 2018, arXiv 1806.11532): generated text games, an optional extra."""

from qvlib.environments.textworld.environment import TextWorld, build

INSTRUCTIONS = """\
You play a text game. The task says how it is won.
Commands, one at a time: look, inventory, go north (south, east, west), open, close or examine a thing, take a thing, take a thing from \
another, put a thing on another, insert a thing into another, drop a thing, unlock a thing with a key; in kitchens also cook a food with \
an oven, stove or BBQ, slice, chop or dice a food with a knife, prepare meal, eat meal.
Call things by their full names, as the game does."""

__all__ = ["INSTRUCTIONS", "TextWorld", "build"]
