"""ScienceWorld (Wang et al. 2022, arXiv 2203.07540): experiments of primary school, an optional extra that needs Java."""

from .environment import ScienceWorld, build

__all__ = ["ScienceWorld", "build"]
