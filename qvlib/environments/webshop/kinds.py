"""What sorts of pages the shop has, and what sorts of actions on them."""

from __future__ import annotations

from qvlib.core.types import State
from qvlib.environments.webshop.environment import parse
from qvlib.environments.webshop.pages import SECTIONS
from qvlib.environments.webshop.search import can_search

_NAVIGATE = ("back to search", "< prev", "next >")


def place(state: State) -> str:
    """``init``, ``results``, ``item``, ``sub`` or, after buying, ``done``."""
    return state.world.kind


def kind(state: State, action: str) -> str:
    """``query``, ``product``, ``option``, ``buy``, ``section``, ``navigate``; refused: ``other``.

    Where an option has the name of a button, the click is the button's, as in ``WebShop.step``.
    """
    verb, argument = parse(action)
    if verb == "search":
        return "query" if can_search(tuple(argument.split(" "))) else "other"
    if verb != "click" or f"click[{argument}]" not in (state.admissible or ()):
        return "other"
    if argument in _NAVIGATE:
        return "navigate"
    if place(state) == "results":
        return "product"
    if argument == "buy now":
        return "buy"
    return "section" if argument in SECTIONS else "option"
