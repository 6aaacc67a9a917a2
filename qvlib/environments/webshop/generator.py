"""The embedded catalogue: a seeded generator of products in the official file format.

Families of near-duplicates: the products of one family share noun, query and shelf, and differ in
attributes (one in the title, one only in the description, one only under Features), in the
options they offer, and in price. Titles and prices show on the results page; what else a product
is shows only when it is opened.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from qvlib.base.files import write_atomic
from qvlib.base.seeding import generator
from qvlib.environments.webshop.vocabulary import (
    BRANDS,
    CATEGORIES,
    COLOURS,
    DESCRIPTIONS,
    REQUESTS,
)

FILES = ("items_shuffle.json", "items_ins_v2.json", "title_nouns.json")


def write_catalogue(folder: Path, products: int, seed: int) -> None:
    """Write ``FILES`` into ``folder``: products, attributes with instructions, nouns of titles."""
    families = [
        (category, noun) for category, (_, nouns, _, _) in CATEGORIES.items() for noun in nouns
    ]
    made = [_product(seed, number, *families[number % len(families)]) for number in range(products)]
    order = generator(seed, "catalogue", "order").permutation(products)
    made = [made[i] for i in order]
    items = [product for product, _, _ in made]
    attributes = {product["asin"]: entry for product, entry, _ in made}
    nouns = {product["name"]: noun for product, _, noun in made}
    for name, content in zip(FILES, (items, attributes, nouns), strict=True):
        write_atomic(folder / name, json.dumps(content, ensure_ascii=False, indent=0))


def _product(seed: int, number: int, category: str, noun: str) -> tuple[dict, dict, list[str]]:
    rng = generator(seed, "catalogue", "product", number)
    shelf, _, pool, sizes = CATEGORIES[category]
    query = noun if noun.endswith("s") else noun + "s"
    has = [str(a) for a in rng.choice(pool, size=3, replace=False)]
    brand = str(rng.choice(BRANDS))
    in_title, in_description, in_features = has
    price = float(rng.integers(5, 96))
    product = {
        "asin": f"E{number:06d}".ljust(10, "X"),
        "name": f"{in_title} {noun}",
        "full_description": str(rng.choice(DESCRIPTIONS)).format(
            noun=noun, brand=brand, attribute=in_description
        ),
        "pricing": f"${price:.2f}",
        "small_description": [f"{brand} {noun}", in_features],
        "product_category": f"{shelf} › {query.title()}",
        "query": query,
        "category": category,
        "customization_options": {
            "color": _values(rng, COLOURS, 4),
            "size": _values(rng, sizes, 2),
        },
    }
    wanted = sorted(has)
    request = str(rng.choice(REQUESTS)).format(attributes=", ".join(wanted), query=query)
    return (
        product,
        {"attributes": has, "instruction": request, "instruction_attributes": wanted},
        noun.split(),
    )


def _values(rng: np.random.Generator, pool: tuple[str, ...], count: int) -> list[dict]:
    chosen = sorted(rng.choice(len(pool), size=count, replace=False))
    return [
        {"value": pool[i], "asin": None, "is_selected": False, "is_available": True} for i in chosen
    ]
