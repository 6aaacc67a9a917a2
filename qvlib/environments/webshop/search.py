"""The shop's search: which products match the keywords, best first."""

from __future__ import annotations

import functools
from collections.abc import Callable

from qvlib.base.seeding import generator
from qvlib.environments.analyzer import tokens
from qvlib.environments.bm25 import build_index
from qvlib.environments.webshop.catalogue import Catalogue, Product

TOP = 50


def document(product: Product) -> str:
    """The text that stands for a product in the index."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options)
    first = product.bullets[0] if product.bullets else ""
    return " ".join([product.title, product.description, first, options]).lower()


def can_search(keywords: tuple[str, ...]) -> bool:
    """False where the original cannot search: by attribute, or by category without naming one."""
    return keywords[0] != "<a>" and keywords != ("<c>",)


def engine(
    catalogue: Catalogue, remember: int = 4096
) -> Callable[[tuple[str, ...]], tuple[str, ...] | None]:
    """Keywords -> asins, best first; None where the original cannot search.

    The first keyword may be ``<c>`` (category), ``<q>`` (query), ``<r>`` (50 random products, here
    always the same for the same keywords) or ``<a>`` (attribute: refused, the original raises).
    """
    products = catalogue.products
    index = build_index([p.asin for p in products], map(document, products))

    @functools.lru_cache(remember)
    def find(keywords: tuple[str, ...]) -> tuple[str, ...] | None:
        if not can_search(keywords):
            return None
        kind, rest = keywords[0], keywords[1:]
        if kind == "<c>":
            return tuple(p.asin for p in products if p.category == rest[0].strip())
        if kind == "<q>":
            return tuple(p.asin for p in products if p.query == " ".join(rest).strip())
        if kind == "<r>":
            drawn = generator("webshop <r>", *rest).permutation(len(products))[:TOP]
            return tuple(products[i].asin for i in drawn)
        return tuple(products[i].asin for i in index.search(tokens(" ".join(keywords)), TOP))

    return find
