"""HotPotQA in pure Python: search, lookup and finish over the official paragraphs or a generated encyclopaedia."""

from .environment import HotPotQA, build

__all__ = ["HotPotQA", "build"]
