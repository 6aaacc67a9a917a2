"""WebShop in pure Python, on the official data files: no server, no Java, the original's texts and rewards."""

from qvlib.environments.webshop.environment import WebShop, build

INSTRUCTIONS = """\
You are shopping on a web site. Find a product that has everything the task asks for, at its price or below, and buy it.
Actions, one at a time:
search[keywords] looks for products; it works on every page.
click[value] opens a product by its code, chooses an option, or presses a button of the page: back to search, next >, < prev, \
description, features, reviews, attributes, buy now.
Choose every option that the task names before buy now. Buying ends the task."""

__all__ = ["INSTRUCTIONS", "WebShop", "build"]
