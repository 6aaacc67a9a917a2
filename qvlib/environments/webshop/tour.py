"""A first look at a shopping task: search by the goal's words, buy the first, count the reward."""

from __future__ import annotations

from qvlib.base.markup import code
from qvlib.core.episodes import replay
from qvlib.core.types import Task
from qvlib.environments.tours import Tour
from qvlib.environments.webshop.environment import WebShop

WORLD = (
    "This world is WebShop (arXiv 2207.01206) in pure Python: an action is `search[keywords]` or "
    "`click[value]`, an observation a page of the shop."
)
NOTES = (
    "The first page offers only a search.",
    "The results page lists products; the same attribute may stand in the title, or only behind a "
    "click on the item's description or features.",
    "The page of the first product: its options can be chosen here, its sections opened.",
)
RULE = """\
Buying ends the episode with a terminal reward in [0, 1] (equation 1 of the WebShop paper):

    reward = r_type × (n_att + n_opt + r_price) / (attributes + options + 1)

with the number of wanted attributes that the product has, of wanted options that were chosen, and
one point if the price fits. The factor for the type of product is below one if the bought thing is
of another kind. The last state tells that factor and the two numbers; price and sum are counted by
hand below. The tests compare all of it with recorded rewards of the original program."""


def tour(environment: WebShop, task: Task) -> Tour:
    """The tour of a shopping task."""
    goal, by_asin = task.goal, environment.catalogue.by_asin
    attributes = ", ".join(code(a) for a in goal.attributes)
    asked = (
        f"The goal wants the attributes {attributes}, {len(goal.options)} options, "
        f"and a price of at most {goal.price_upper:.2f}."
    )
    search = f"search[{goal.query}]"
    listed = environment.step(environment.reset(task), search).admissible
    product = next((a for a in listed or () if a[6:-1].upper() in by_asin), None)
    if product is None:  # nothing of that name: the walk ends at the results
        return Tour(WORLD, asked, (search,), RULE, NOTES)
    walk = (search, product, "click[buy now]")
    parts, price = (
        replay(environment, task, walk).world.parts,
        by_asin[product[6:-1].upper()].price,
    )
    wanted = len(goal.attributes) + len(goal.options) + 1
    by_hand = parts.r_type * (parts.n_att + parts.n_opt + (price <= goal.price_upper)) / wanted
    counted = (
        f"Type {parts.r_type:g}, attributes {parts.n_att} of {len(goal.attributes)}, "
        f"options {parts.n_opt} of {len(goal.options)}, price {price:.2f}"
    )
    return Tour(WORLD, asked, walk, RULE, NOTES, by_hand, counted)
