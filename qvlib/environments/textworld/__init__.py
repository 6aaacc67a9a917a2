"""TextWorld (Côté et al. 2018, arXiv 1806.11532): generated text games, an optional extra."""

from qvlib.environments.textworld.environment import TextWorld, build
from qvlib.environments.textworld.world import INSTRUCTIONS, WORLD

__all__ = ["INSTRUCTIONS", "WORLD", "TextWorld", "build"]
