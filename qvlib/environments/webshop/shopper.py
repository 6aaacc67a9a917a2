"""A noisy scripted shopper: the demonstrator that small agents are cloned from.

It reads what any buyer reads (the instruction, the page it is on) and is fallible as people are:
it skips options it finds tedious, grabs an item near the top, gets distracted. Its probabilities
are what makes the cloned agent sensible but improvable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.types import Proposal, Request, State
from qvlib.environments.webshop.catalogue import normalized
from qvlib.environments.webshop.environment import WebShop


@dataclass(frozen=True, slots=True)
class Habits:
    """Probabilities of the shopper's choices.

    loose_query: that it searches by one word of the product's name only.
    attribute_query: that an attribute of the goal joins the search words.
    compare: that it compares the titles and prices of a results page instead of taking one near the
        top.
    hasty: that it buys although a wanted option is offered and not chosen; wrong_option: that it
        takes another value of it.
    inspect: that it opens Description or Features before buying.
    leave: that it goes back to the results when the item does not offer all wanted options.
    wander: that it does anything else that the page offers.
    """

    loose_query: float = 0.125
    attribute_query: float = 0.25
    compare: float = 0.65
    hasty: float = 0.175
    wrong_option: float = 0.05
    inspect: float = 0.1
    leave: float = 0.15
    wander: float = 0.03

    def scaled(self, errors: float) -> Habits:
        """What is an error so many times as probable, at most 1; not comparing is one."""
        if errors == 1.0:
            return self
        scaled = {
            name: min(1.0, errors * getattr(self, name))
            for name in ("loose_query", "hasty", "wrong_option", "wander")
        }
        return replace(self, compare=1.0 - min(1.0, errors * (1.0 - self.compare)), **scaled)


@dataclass(frozen=True)
class Shopper:
    """A scripted agent for WebShop; its draws derive from the request's key."""

    environment: WebShop
    habits: Habits = Habits()

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [
            [
                Proposal(self._act(request.state, generator(*request.key, k)))
                for k in range(request.n)
            ]
            for request in requests
        ]

    def _act(self, state: State, rng: np.random.Generator) -> str:
        page = state.world
        if page.kind != "init" and rng.random() < self.habits.wander:
            return str(rng.choice(state.admissible))
        return {
            "init": self._search,
            "results": self._choose_item,
            "item": self._on_item,
            "sub": self._on_sub_page,
        }[page.kind](state, rng)

    def _search(self, state: State, rng: np.random.Generator) -> str:
        goal = state.task.goal
        name = goal.query
        if rng.random() < self.habits.loose_query:
            name = str(rng.choice(name.split()))
        words = [name] + [a for a in goal.attributes if rng.random() < self.habits.attribute_query]
        if len(words) > 1 and rng.random() < 0.5:
            words.reverse()
        return f"search[{' '.join(words).lower()}]"

    def _choose_item(self, state: State, rng: np.random.Generator) -> str:
        by_asin = self.environment.catalogue.by_asin
        listed = [
            by_asin[c.upper()] for c in self.environment.clickables(state) if c.upper() in by_asin
        ]
        if not listed:
            return "click[back to search]"
        seen = {step.action for step in state.history}
        unopened = [p for p in listed if f"click[{p.asin.lower()}]" not in seen] or listed
        if rng.random() < self.habits.compare:
            goal = state.task.goal
            title = [sum(a in p.title.lower() for a in goal.attributes) for p in unopened]
            cheap = [p.price <= goal.price_upper for p in unopened]
            scores = np.array(
                [t + 1.0 * c for t, c in zip(title, cheap, strict=True)]
            ) + 0.01 * rng.random(len(unopened))
            return f"click[{unopened[int(np.argmax(scores))].asin.lower()}]"
        rank = min(int(rng.geometric(0.3)) - 1, len(unopened) - 1)
        return f"click[{unopened[rank].asin.lower()}]"

    def _on_item(self, state: State, rng: np.random.Generator) -> str:
        offered = dict(self.environment.catalogue.by_asin[state.world.asin].options)
        wanted = wanted_options(state, offered)
        lacks = any(value not in offered.get(name, ()) for name, value in wanted)
        if lacks and not state.world.options and rng.random() < self.habits.leave:
            return "click[< prev]"
        inspected = any(
            step.action in ("click[description]", "click[features]") for step in state.history
        )
        if not inspected and rng.random() < self.habits.inspect:
            return "click[features]" if rng.random() < 0.5 else "click[description]"
        return self._option_or_buy(state, offered, wanted, rng)

    def _option_or_buy(
        self,
        state: State,
        offered: dict[str, tuple[str, ...]],
        wanted: list[tuple[str, str]],
        rng: np.random.Generator,
    ) -> str:
        """Choose one wanted option that is offered and not chosen, or buy."""
        chosen = dict(state.world.options)
        missing = [
            (offered[name], value)
            for name, value in wanted
            if name not in chosen and value in offered.get(name, ())
        ]
        if not missing or rng.random() < self.habits.hasty:
            return "click[buy now]"
        values, value = missing[int(rng.integers(len(missing)))]
        return f"click[{rng.choice(values) if rng.random() < self.habits.wrong_option else value}]"

    def _on_sub_page(self, state: State, rng: np.random.Generator) -> str:
        return "click[< prev]"


def wanted_options(state: State, offered: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """(name, value) of the options the goal asks for.

    A human goal names only values: the name is that of the option, if any, with that value among
    those offered, else empty.
    """
    return [
        o if isinstance(o, tuple) else _named(normalized(o), offered)
        for o in state.task.goal.options
    ]


def _named(value: str, offered: Mapping[str, tuple[str, ...]]) -> tuple[str, str]:
    return next((name for name, values in offered.items() if value in values), ""), value
