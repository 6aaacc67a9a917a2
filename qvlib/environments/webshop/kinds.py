"""What kinds of actions and pages there are in WebShop, and what a reward is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qvlib.core.episodes import replay
from qvlib.core.types import State, Task
from qvlib.environments.webshop import pages
from qvlib.environments.webshop.environment import WebShop, parse

_BUTTONS = {"back to search", "next >", "< prev"}


def kind(state: State, action: str) -> str:
    """Query, product, option, buy, section, navigate; what is not listed is other."""
    verb, argument = parse(action)
    if verb == "search":
        return "query"
    if f"click[{argument}]" not in (state.admissible or ()):
        return "other"
    if argument in pages.SECTIONS:
        return "section"
    if argument == "buy now":
        return "buy"
    if argument in _BUTTONS:
        return "navigate"
    return "product" if state.describe(f"click[{argument}]") else "option"


def place(state: State) -> str:
    """The kind of page: init, results, item, sub, done."""
    return str(state.world.kind)


def parts(environment: WebShop, task: Task, actions: Sequence[str]) -> Mapping[str, float]:
    """Shares of the wanted attributes, options, price and product; all 0 where nothing was bought.

    A goal without options has no such part.
    """
    page: Any = replay(environment, task, actions).world
    bought = page.parts
    wants_options = bool(task.goal.options)
    if bought is None:
        return dict.fromkeys(
            ("attributes", *(["options"] * wants_options), "price", "product"), 0.0
        )
    told = {"attributes": bought.r_att, "price": float(bought.r_price)}
    if bought.r_option is not None:
        told["options"] = bought.r_option
    return told | {"product": float(page.asin == task.goal.asin)}
