"""WebShop as a ``World``: its settings, its names, and what it is told of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qvlib.base.paths import resolve
from qvlib.core.episodes import replay
from qvlib.core.types import Task
from qvlib.environments.webshop.environment import WebShop, build
from qvlib.environments.webshop.generator import write_catalogue
from qvlib.environments.webshop.kinds import kind, place
from qvlib.environments.webshop.script import Script
from qvlib.environments.webshop.settings import WebShopSettings
from qvlib.environments.webshop.shopper import Habits, Shopper
from qvlib.environments.webshop.tour import tour
from qvlib.environments.world import Names, World, common

INSTRUCTIONS = """\
You are shopping on a web site. Find a product that has everything the task asks for, at its price \
or below, and buy it.
Actions, one at a time:
search[keywords] looks for products; it works on every page.
click[value] opens a product by its code, chooses an option, or presses a button of the page: back \
to search, next >, < prev, description, features, reviews, attributes, buy now.
Choose every option that the task names before buy now. Buying ends the task."""

NAMES = Names(
    "products",
    "raise catalogue_products",
    "Shallow pairs are about what to search for and which product to open; deep ones about "
    "options and when to buy. `search` against `search` is about the words to look for, `click` "
    "against `click` about products, options and buying, and mixed rows about when to start anew.",
)


def _built(settings: WebShopSettings, folder: Path) -> WebShop:
    nouns = settings.title_nouns
    return build(
        folder,
        goals=settings.goals,
        title_nouns=nouns if nouns in ("auto", "spacy") else resolve(nouns),
        repair=settings.repair_rules,
        observation_mode=settings.observation_mode,
        show_attributes=settings.show_attributes,
        **common(settings),
    )


def _make_data(settings: WebShopSettings, folder: Path, processes: int = 0) -> None:
    write_catalogue(folder, settings.catalogue_products, settings.catalogue_seed)


def _demonstrator(environment: WebShop, errors: float) -> Shopper:
    return Shopper(environment, Habits().scaled(errors))


def _parts(environment: WebShop, task: Task, actions: Sequence[str]) -> dict[str, float]:
    """Shares of the wanted attributes and options, price and product right; 0 if none was bought.

    A goal without options has no share of them. The product is no part of the reward: another one
    can earn all of it.
    """
    end = replay(environment, task, actions).world
    bought = end.parts
    shares = {"attributes": bought.r_att if bought else 0.0}
    if task.goal.options:
        shares["options"] = bought.r_option if bought else 0.0
    shares["price"] = float(bought is not None and bought.r_price)
    shares["product"] = float(bought is not None and end.asin == task.goal.asin)
    return shares


def _solution(environment: WebShop, task: Task) -> str:
    options = (o[1] if isinstance(o, tuple) else o for o in task.goal.options)
    return f"Solution: {'; '.join((task.goal.name, *options))}"


WORLD = World(
    "webshop",
    WebShopSettings,
    _built,
    INSTRUCTIONS,
    NAMES,
    make_data=_make_data,
    demonstrator=_demonstrator,
    tour=tour,
    kind=kind,
    place=place,
    script=Script,
    parts=_parts,
    solution=_solution,
)
