"""WebShop in pure Python, on the official data files: no server, no Java, the original's texts and rewards."""

from .environment import WebShop, build

__all__ = ["WebShop", "build"]
