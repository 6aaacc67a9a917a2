"""A fixed script for WebShop: search the noun, open the first product, its wanted options, buy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.core.types import Proposal, Request, State
from qvlib.environments.webshop.environment import WebShop
from qvlib.environments.webshop.shopper import wanted_options


@dataclass(frozen=True)
class Script:
    """It draws and compares nothing; a search without products is made again by one word."""

    environment: WebShop

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [[Proposal(self._act(r.state))] * r.n for r in requests]

    def _act(self, state: State) -> str:
        page, noun = state.world, state.task.goal.query.lower()
        if page.kind == "init":
            return f"search[{noun.split()[-1] if state.history else noun}]"
        if page.kind == "results":
            listed = (
                a for a, d in zip(state.admissible or (), state.descriptions, strict=False) if d
            )
            return next(listed, "click[back to search]")
        if page.kind == "sub":
            return "click[< prev]"
        offered = dict(self.environment.catalogue.by_asin[page.asin].options)
        chosen = dict(page.options)
        return next(
            (
                f"click[{value}]"
                for name, value in wanted_options(state, offered)
                if name not in chosen and value in offered.get(name, ())
            ),
            "click[buy now]",
        )
