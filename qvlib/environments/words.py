"""What each world calls things, for sentences, tables and errors: the one place that says it."""

from __future__ import annotations

from dataclasses import dataclass

from qvlib.pipeline.params import Params


@dataclass(frozen=True, slots=True)
class Words:
    """groups: what splits never cut through and intervals resample, in the plural.

    more: what to do for more tasks. kinds: what the kinds of preference pairs are about, Markdown.
    """

    groups: str
    more: str
    kinds: str


WORLDS = {
    "webshop": Words(
        "products",
        "raise catalogue_products",
        "Shallow pairs are about what to search for and which product to open; deep ones about options and when to buy. "
        "`search` against `search` is about the words to look for, `click` against `click` about products, options and buying, "
        "and mixed rows about when to start anew.",
    ),
    "hotpotqa": Words(
        "groups of questions",
        "raise catalogue_products",
        "Shallow pairs are about the article to begin with; deep ones about where it leads and what to answer. `search` against "
        "`search` is about titles, `finish` against `finish` about answers, and mixed rows about whether enough was read.",
    ),
    "textworld": Words(
        "games",
        "raise game_count",
        "The first word of a command is its kind. Shallow pairs are about where to go and what to look at first; deep ones about "
        "what to do with the things that were found.",
    ),
    "scienceworld": Words(
        "variations",
        "raise game_count",
        "The first word of a command is its kind. Shallow pairs are about where to go and what to look for; deep ones about what "
        "to do with it, and in which order.",
    ),
}
OWN = Words(
    "groups",
    "let the environment give more",
    "The kind of an action is what stands before its bracket, or its first word. Rows of one kind are about what to do it with, "
    "mixed rows about when to do what.",
)


def words(params: Params) -> Words:
    """The words of a run's world; one of your own has general ones."""
    found = WORLDS.get(params.environment, OWN)
    if params.data_dir and params.environment in WORLDS:
        return Words(found.groups, "put more into data_dir", found.kinds)
    return found
