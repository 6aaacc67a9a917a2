"""The least that an agent must beat in the shop: a fixed script that compares nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.core.types import Proposal, Request, State
from qvlib.environments.webshop.environment import WebShop
from qvlib.environments.webshop.kinds import kind, place
from qvlib.environments.webshop.shopper import wanted_options


@dataclass(frozen=True)
class Script:
    """Searches the goal's noun, opens the first product, chooses what is wanted of it, buys it."""

    environment: WebShop

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [[Proposal(self._act(request.state))] * request.n for request in requests]

    def _act(self, state: State) -> str:
        if place(state) == "init":
            return _search(state)
        if place(state) == "results":
            listed = (action for action in state.admissible if kind(state, action) == "product")
            return next(listed, "click[back to search]")
        return self._on_item(state) if place(state) == "item" else "click[< prev]"

    def _on_item(self, state: State) -> str:
        """The first wanted option that was not clicked yet, or buy."""
        offered = dict(self.environment.catalogue.by_asin[state.world.asin].options)
        clicked = {step.action for step in state.history}
        for name, value in wanted_options(state, offered):
            action = f"click[{value}]"
            if value in offered.get(name, ()) and action not in clicked:
                return action
        return "click[buy now]"


def _search(state: State) -> str:
    """For the noun; where that was searched before, so found nothing, for its last word."""
    noun = state.task.goal.query.lower()
    action = f"search[{noun}]"
    if any(step.action == action for step in state.history):
        return f"search[{noun.rpartition(' ')[2]}]"
    return action
