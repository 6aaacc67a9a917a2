"""ScienceWorld (Wang et al. 2022, arXiv 2203.07540), an optional extra that needs Java."""

from qvlib.environments.scienceworld.environment import ScienceWorld, build
from qvlib.environments.scienceworld.world import INSTRUCTIONS, WORLD

__all__ = ["INSTRUCTIONS", "WORLD", "ScienceWorld", "build"]
