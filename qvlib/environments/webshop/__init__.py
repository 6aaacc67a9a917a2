"""WebShop in pure Python, on the official data files: no server, no Java, the original's texts and rewards."""

from qvlib.environments.webshop.environment import WebShop, build
from qvlib.environments.webshop.world import INSTRUCTIONS, WORLD

__all__ = ["INSTRUCTIONS", "WORLD", "WebShop", "build"]
