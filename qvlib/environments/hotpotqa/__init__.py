"""HotPotQA in pure Python, over the official paragraphs or a generated encyclopaedia."""

from qvlib.environments.hotpotqa.environment import HotPotQA, build
from qvlib.environments.hotpotqa.world import INSTRUCTIONS, WORLD

__all__ = ["INSTRUCTIONS", "WORLD", "HotPotQA", "build"]
