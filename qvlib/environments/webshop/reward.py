"""The reward of a purchase, with all its parts.

reward = r_type (n_att + n_opt + r_price) / (attributes + options + 1), in [0, 1]
(Yao et al. 2022, arXiv 2207.01206, equation 1, as the published code computes it).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.base.errors import QvlibError
from qvlib.environments.webshop import colours
from qvlib.environments.webshop.catalogue import Product
from qvlib.environments.webshop.fuzzy import matches
from qvlib.environments.webshop.goals import Goal
from qvlib.environments.webshop.nouns import TitleNouns


@dataclass(frozen=True, slots=True)
class RewardParts:
    """The reward and its parts; r_option and w_option are None for a goal without options."""

    reward: float
    r_type: float
    r_att: float
    r_option: float | None
    r_price: bool
    w_att: float
    w_option: float | None
    w_price: float
    query_match: bool
    category_match: bool
    title_score: float
    n_att: int
    n_opt: int


def reward(
    goal: Goal,
    product: Product,
    options: Sequence[tuple[str, str]],
    price: float | None,
    nouns: TitleNouns,
    *,
    repair: bool = False,
) -> RewardParts:
    """Score buying ``product`` with the chosen ``options``, (name, value) pairs.

    ``repair`` mends what makes the original refuse right purchases: options are compared
    by value under their name, colours are whole words, a title without common nouns
    does not void the same query and category, and attributes are looked up in lower case.

    Raises:
        QvlibError: a goal without attributes or without a positive price limit, or no price.
    """
    if not goal.attributes:
        raise QvlibError(
            f"goal {goal.kind} {goal.index} ({goal.asin}): no attributes, so no reward; "
            "leave it out"
        )
    if goal.price_upper <= 0 or price is None:
        raise QvlibError(
            f"goal {goal.kind} {goal.index} ({goal.asin}): price {price} against the limit "
            f"{goal.price_upper} cannot be compared; the limit must be above 0 and the price known"
        )
    r_type, query_match, category_match, title_score = _type(goal, product, nouns, repair)
    n_att = sum(_has_attribute(product, a, repair) for a in goal.attributes)
    n_opt = _count_options(goal, options, repair)
    r_price = price <= goal.price_upper
    parts = len(goal.attributes) + len(goal.options) + 1
    return RewardParts(
        reward=(n_att + n_opt + r_price) / parts * r_type,
        r_type=r_type,
        r_att=n_att / len(goal.attributes),
        r_option=n_opt / len(goal.options) if goal.options else None,
        r_price=r_price,
        w_att=len(goal.attributes) / parts,
        w_option=len(goal.options) / parts if goal.options else None,
        w_price=1 / parts,
        query_match=query_match,
        category_match=category_match,
        title_score=title_score,
        n_att=n_att,
        n_opt=n_opt,
    )


def _type(
    goal: Goal, product: Product, nouns: TitleNouns, repair: bool
) -> tuple[float, bool, bool, float]:
    query_match = product.query == goal.query
    category_match = (
        len(_categories(product.product_category) & _categories(goal.product_category)) >= 2
    )
    wanted = nouns(goal.name)
    title_score = len(set(nouns(product.title)) & set(wanted)) / len(wanted) if wanted else 0.2
    r_type = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    if not (repair and query_match and category_match):
        if title_score == 0:
            r_type = 0.0
        elif title_score < 0.1:
            r_type = 0.1
    return r_type, query_match, category_match, title_score


@functools.lru_cache(1 << 14)
def _categories(path: str) -> frozenset[str]:
    return frozenset(part.strip() for part in path.split("›"))


def _has_attribute(product: Product, attribute: str, repair: bool) -> bool:
    if any(matches(has, attribute) for has in product.attributes):
        return True
    if repair:
        attribute = attribute.strip().lower()
        if not attribute:
            return False
    return (
        attribute in product.title.lower()
        or attribute in " ".join(product.bullets).lower()
        or attribute in product.description.lower()
    )


def _count_options(goal: Goal, chosen: Sequence[tuple[str, str]], repair: bool) -> int:
    if repair:
        return sum(_option_repaired(wanted, chosen) for wanted in goal.options)
    values = [colours.by_substring(value) for _, value in chosen]
    targets = [_target(wanted) for wanted in goal.options]
    return sum(any(matches(value, target) for value in values) for target in targets)


def _target(wanted: tuple[str, str] | str) -> str:
    """What the original matches: a pair is tested for *being* a colour, then matched as text."""
    if isinstance(wanted, str):
        return colours.by_substring(wanted)
    return colours.by_equality(wanted) or str(wanted)


def _option_repaired(wanted: tuple[str, str] | str, chosen: Sequence[tuple[str, str]]) -> bool:
    if isinstance(wanted, str):
        target, values = wanted, [value for _, value in chosen]
    else:
        target, values = wanted[1], [value for name, value in chosen if name == wanted[0]]
    return any(
        value == target or matches(colours.by_word(value), colours.by_word(target))
        for value in values
    )
