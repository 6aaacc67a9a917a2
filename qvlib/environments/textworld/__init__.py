"""TextWorld (Côté et al. 2018, arXiv 1806.11532): generated text games, an optional extra."""

from .environment import TextWorld, build

__all__ = ["TextWorld", "build"]
