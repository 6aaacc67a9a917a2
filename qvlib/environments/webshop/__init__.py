"""WebShop in pure Python: no server, no Java, the original's data files, texts and rewards."""

from qvlib.environments.webshop.environment import WebShop, build
from qvlib.environments.webshop.world import INSTRUCTIONS, WORLD

__all__ = ["INSTRUCTIONS", "WORLD", "WebShop", "build"]
