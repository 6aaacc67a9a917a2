"""The original's colour words, in its order: the first that a value contains stands for it."""

from __future__ import annotations

import functools
import re

COLOURS = tuple(
    """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown
burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac
copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite
grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon leopard light
lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom mustard natural navy
nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell
silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut
wheat white wine yellow
""".split()
)


@functools.lru_cache(1 << 14)
def by_substring(value: str) -> str:
    """The first colour in the value, even in a word (``washable`` -> ``ash``), else the value."""
    return next((colour for colour in COLOURS if colour in value), value)


@functools.lru_cache(1 << 14)
def by_word(value: str) -> str:
    """The first colour that is a word of the value; else the value."""
    words = set(re.findall(r"\w+", value.lower()))
    return next((colour for colour in COLOURS if colour in words), value)


def by_equality(values: tuple[str, ...]) -> str | None:
    """The first colour that equals one of the values."""
    return next((colour for colour in COLOURS if colour in values), None)
