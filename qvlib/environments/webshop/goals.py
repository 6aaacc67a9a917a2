"""Goals as the original builds them: the same draws in the same order, then the same shuffle."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from ...errors import QvlibError
from .catalogue import Catalogue, HumanInstruction, Product

NO_LIMIT = 1_000_000
_LIMITS = [10.0 * i for i in range(1, 100)]
_ORDER_SEED = 233  # the original's


@dataclass(frozen=True, slots=True)
class Goal:
    """What to buy.

    options: of a synthetic goal, (name, value) pairs; of a human goal, values.
    index: the int that the original's ``reset(session=index)`` takes.
    number: position before the shuffle; nth: the same within its product.
    """

    kind: Literal["synthetic", "human"]
    asin: str
    category: str
    query: str
    name: str
    product_category: str
    instruction: str
    attributes: tuple[str, ...]
    price_upper: float
    options: tuple[tuple[str, str], ...] | tuple[str, ...]
    weight: float = 1
    index: int = -1
    number: int = -1
    nth: int = -1


def build(catalogue: Catalogue, kind: Literal["synthetic", "human"]) -> tuple[Goal, ...]:
    """All goals of a kind, in the original's final order.

    The price limits go on from the stream that drew the prices. A goal without attributes has
    no defined reward (the original divides by zero); it is kept here, with weight 0.

    Raises:
        QvlibError: human goals asked of data without human instructions.
    """
    stream = random.Random()
    stream.setstate(catalogue.draws)
    if kind == "synthetic":
        goals = _weighted([g for p in catalogue.products if p.instruction is not None for g in _synthetic(p, stream)])
    else:
        goals = [_human(p, h, stream) for p in catalogue.products for h in p.human if h.attributes]
    if not goals:
        file = "items_human_ins.json" if kind == "human" else "items_ins_v2.json"
        raise QvlibError(f"data_dir {str(catalogue.data_dir)!r}: no {kind} goals; fetch {file}, or choose other goals")
    nth: Counter[str] = Counter()
    numbered = []
    for number, goal in enumerate(goals):
        numbered.append(replace(goal, number=number, nth=nth[goal.asin]))
        nth[goal.asin] += 1
    random.Random(_ORDER_SEED).shuffle(numbered)
    return tuple(replace(goal, index=index) for index, goal in enumerate(numbered))


def _synthetic(product: Product, stream: random.Random) -> list[Goal]:
    upper, price_text = _price_limit(product.price, stream)
    options = sorted(product.options)
    names = [name for name, _ in options]
    goals = []
    for values in itertools.product(*(values for _, values in options)):
        wanted = ", and ".join(f"{n}: {v}" for n, v in zip(names, values))
        text = f"{product.instruction}{' with ' + wanted if wanted else ''}{price_text}"
        pairs = tuple(zip(names, values))
        goals.append(_goal("synthetic", product, text, product.instruction_attributes, upper, pairs))
    return goals


def _human(product: Product, human: HumanInstruction, stream: random.Random) -> Goal:
    upper, price_text = _price_limit(product.price, stream)
    return _goal("human", product, human.text.strip(".") + price_text, human.attributes, upper, human.options)


def _goal(kind, product: Product, text: str, attributes, upper: float, options) -> Goal:
    return Goal(kind, product.asin, product.category, product.query, product.title, product.product_category, text,
                attributes, upper, options)


def _price_limit(price: float, stream: random.Random) -> tuple[float, str]:
    above = [limit for limit in _LIMITS if limit > price][:4]
    if len(above) < 2:
        return NO_LIMIT, ""
    upper = max(stream.sample(above, 2))
    return upper, f", and price lower than {upper:.2f} dollars"


def _weighted(goals: list[Goal]) -> list[Goal]:
    """Weight = mean over the goal's attributes of 1 / number of goals that have it."""
    count = Counter(a for goal in goals for a in goal.attributes)
    return [replace(goal, weight=sum(1.0 / count[a] for a in goal.attributes) / len(goal.attributes)
                    if goal.attributes else 0.0) for goal in goals]
