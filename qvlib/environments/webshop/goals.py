"""Goals as the original builds them: the same draws in the same order, then the same shuffle.

A catalogue of a million products has many millions of synthetic goals, so that a goal is made when
it is asked for: kept is only what was drawn, and the order.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from qvlib.base.errors import QvlibError
from qvlib.environments.webshop.catalogue import Catalogue, HumanInstruction, Product

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


@dataclass(frozen=True, slots=True)
class Source:
    """What goals that follow each other are made from: a product, or a person's instruction for it.

    upper, price_text: the price limit that was drawn for them; first: ``nth`` of the first.
    """

    product: Product
    human: HumanInstruction | None
    upper: float
    price_text: str
    first: int = 0

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.human.attributes if self.human else self.product.instruction_attributes

    @property
    def goals(self) -> int:
        """One, or one a choice of a value for each option; none where an option has no values."""
        return 1 if self.human else math.prod(len(values) for _, values in self.product.options)


@dataclass(frozen=True, eq=False)
class Goals(Sequence[Goal]):
    """All goals of a kind, in the original's final order.

    starts: number of the first goal of each source, and last that of all goals;
    numbers: index -> number; weights: of each source.
    """

    kind: Literal["synthetic", "human"]
    sources: tuple[Source, ...]
    starts: Sequence[int]
    numbers: Sequence[int]
    weights: Sequence[float]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Goal:
        index = range(len(self))[index]
        number = self.numbers[index]
        at = bisect_right(self.starts, number) - 1
        source, nth = self.sources[at], number - self.starts[at]
        text, options = _human(source.human) if source.human else _synthetic(source.product, nth)
        p = source.product
        return Goal(
            self.kind,
            p.asin,
            p.category,
            p.query,
            p.title,
            p.product_category,
            text + source.price_text,
            source.attributes,
            source.upper,
            options,
            self.weights[at],
            index,
            number,
            source.first + nth,
        )


def build(catalogue: Catalogue, kind: Literal["synthetic", "human"]) -> Goals:
    """All goals of a kind, in the original's final order.

    The price limits go on from the stream that drew the prices. A goal without attributes has
    no defined reward (the original divides by zero); it is kept here, with weight 0.

    Raises:
        QvlibError: human goals asked of data without human instructions.
    """
    stream = random.Random()
    stream.setstate(catalogue.draws)
    if kind == "synthetic":
        sources = tuple(
            Source(p, None, *_price_limit(p.price, stream))
            for p in catalogue.products
            if p.instruction is not None
        )
    else:
        sources = tuple(
            Source(p, h, *_price_limit(p.price, stream), nth)
            for p in catalogue.products
            for nth, h in enumerate(h for h in p.human if h.attributes)
        )
    starts = array("q", accumulate((s.goals for s in sources), initial=0))
    if not starts[-1]:
        file = "items_human_ins.json" if kind == "human" else "items_ins_v2.json"
        raise QvlibError(
            f"data_dir {str(catalogue.data_dir)!r}: no {kind} goals; fetch {file}, "
            "or choose other goals"
        )
    numbers = array("q", range(starts[-1]))
    random.Random(_ORDER_SEED).shuffle(numbers)
    return Goals(
        kind,
        sources,
        starts,
        numbers,
        _weights(sources) if kind == "synthetic" else [1] * len(sources),
    )


def _synthetic(product: Product, nth: int) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Instruction and options of a product's nth choice of values; the last changes first."""
    chosen = []
    for name, values in sorted(product.options, reverse=True):
        nth, value = divmod(nth, len(values))
        chosen.append((name, values[value]))
    options = tuple(reversed(chosen))
    wanted = ", and ".join(f"{name}: {value}" for name, value in options)
    return f"{product.instruction}{' with ' + wanted if wanted else ''}", options


def _human(human: HumanInstruction) -> tuple[str, tuple[str, ...]]:
    return human.text.strip("."), human.options


def _price_limit(price: float, stream: random.Random) -> tuple[float, str]:
    above = [limit for limit in _LIMITS if limit > price][:4]
    if len(above) < 2:
        return NO_LIMIT, ""
    upper = max(stream.sample(above, 2))
    return upper, f", and price lower than {upper:.2f} dollars"


def _weights(sources: Sequence[Source]) -> array:
    """Mean over a goal's attributes of 1 / number of goals that have it."""
    count: Counter[str] = Counter()
    for source in sources:
        for attribute in source.attributes:
            count[attribute] += source.goals
    return array(
        "d",
        (
            sum(1.0 / count[a] for a in s.attributes) / len(s.attributes)
            if s.attributes and s.goals
            else 0.0
            for s in sources
        ),
    )
