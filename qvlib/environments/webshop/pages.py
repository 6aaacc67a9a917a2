"""Pages as the original shows them: segments of text, rendered as ``text`` or ``text_rich``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from qvlib.environments.webshop.catalogue import Product
from qvlib.environments.webshop.reward import RewardParts

Segment = tuple[Literal["text", "button", "option", "product"], str]

SECTIONS = {name.lower(): name for name in ("Description", "Features", "Reviews", "Attributes")}
BACK, PREV, NEXT, BUY = "Back to Search", "< Prev", "Next >", "Buy Now"
_SPACES = " \n\t\f\r"
_HTML_SAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})


@dataclass(frozen=True, slots=True)
class Page:
    """Where the buyer is.

    page: number of the results page, remembered on the pages behind it.
    options: chosen (name, value) pairs, in the order of first choice.
    section: of a sub page, a key of ``SECTIONS``.
    visited: asins opened since the last search page.
    parts: on the done page, what the reward was made of.
    """

    kind: Literal["init", "results", "item", "sub", "done"] = "init"
    keywords: tuple[str, ...] | None = None
    page: int | None = None
    asin: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    section: str = ""
    visited: tuple[str, ...] = ()
    parts: RewardParts | None = None


@dataclass(frozen=True, slots=True)
class View:
    """The part of a page that does not depend on the task.

    body: text after the instruction; groups: option value -> name of its option;
    links: clickable -> asin. descriptions: of each of ``admissible``, price and title of a product.
    """

    body: str
    clickables: tuple[str, ...]
    admissible: tuple[str, ...]
    groups: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    descriptions: tuple[str, ...] = ()


def view(segments: Sequence[Segment], groups: dict[str, str] | None = None) -> View:
    """Render segments and list what can be clicked: buttons and links first, then options."""
    clickables = dict.fromkeys(
        text.lower() for style, text in segments if style in ("button", "product")
    )
    groups = groups or {}
    clickables.update(dict.fromkeys(groups))
    links = {text.lower(): text for style, text in segments if style == "product"}
    # Only the start page has the search bar, and there its button does nothing.
    admissible = tuple("search[<keywords>]" if c == "search" else f"click[{c}]" for c in clickables)
    shown = _shown(segments)
    descriptions = tuple(shown.get(c, "") for c in clickables) if shown else ()
    return View(text(segments), tuple(clickables), admissible, groups, links, descriptions)


def _shown(segments: Sequence[Segment]) -> dict[str, str]:
    """Clickable of a product -> its price and title, which stand behind it on a results page."""
    texts = [text for _, text in segments]
    return {
        asin.lower(): f"{price} {title}"
        for (style, asin), title, price in zip(segments, texts[1:], texts[2:], strict=False)
        if style == "product"
    }


def header(instruction: str, first: bool = False) -> list[Segment]:
    """The lines above every page but the last."""
    if first:
        return [("text", "WebShop"), ("text", "Instruction: "), ("text", instruction)]
    return [("text", "Instruction:"), ("text", instruction)]


def start() -> list[Segment]:
    """The search page, below its header."""
    return [("button", "Search")]


def results(products: Sequence[Product], page: int, total: int) -> list[Segment]:
    """One page of search results; ``products`` are those it shows."""
    segments: list[Segment] = [("button", BACK), ("text", f"Page {page} (Total results: {total})")]
    if page > 1:
        segments.append(("button", PREV))
    segments.append(("button", NEXT))
    for product in products:
        segments += [
            ("product", product.asin),
            ("text", product.title),
            ("text", product.price_tag),
        ]
    return segments


def item(product: Product, show_attributes: bool) -> list[Segment]:
    """A product's page."""
    segments: list[Segment] = [("button", BACK), ("button", PREV)]
    for name, values in product.options:
        segments.append(("text", name))
        segments += [("option", value) for value in values]
    segments += [
        ("text", product.title),
        ("text", f"Price: {product.price_tag}"),
        ("text", "Rating: N.A."),
    ]
    sections = [name for name in SECTIONS.values() if show_attributes or name != "Attributes"]
    return segments + [("button", name) for name in (*sections, BUY)]


def groups_of(product: Product) -> dict[str, str]:
    """Option value -> the option it sets: the last that has it, as in the original."""
    return {value: name for name, values in product.options for value in values}


def section(product: Product, name: str) -> list[Segment]:
    """A product's description, features, reviews (never loaded by the original) or attributes."""
    lines: list[str] = []
    if name == "description":
        lines = [product.description]
    elif name == "features":
        lines = [" " + bullet for bullet in product.bullets]
    elif name == "attributes":
        lines = [" " + a for a in product.attributes] + [
            product.category,
            product.query,
            product.product_category,
        ]
    return [("button", BACK), ("button", PREV), *(("text", line) for line in lines)]


def done(page: Page, reward: float) -> list[Segment]:
    """The page after buying; the original leaves most of its fields empty."""
    chosen = json.dumps(dict(page.options), sort_keys=True).translate(_HTML_SAFE)
    return [
        ("text", line)
        for line in (
            "Thank you for shopping with us!",
            "Your code: ",
            "None",
            " (Paste it in your MTurk interface.)",
            "Purchased",
            "asin",
            page.asin,
            "options",
            chosen,
            "attrs",
            "None",
            "category",
            "None",
            "query",
            "None",
            "product category",
            "None",
            "Target",
            "asin",
            "options",
            "attrs",
            "price upper",
            "instuction text",
            "category",
            "product category",
            "query",
            "Goal ",
            "None",
            "Reward",
            "Your score (min 0.0, max 1.0)",
            str(reward),
            "Reward Details ",
            "None",
        )
    ]


def text(segments: Sequence[Segment]) -> str:
    """The ``text`` observation."""
    return " [SEP] ".join(visible.strip() for _, visible in _visible(segments))


def rich(segments: Sequence[Segment], address: str, visited: Sequence[str]) -> str:
    """The ``text_rich`` observation: one line a text, buttons marked, clicked ones too."""
    lines: list[str] = []
    for style, visible in _visible(segments):
        if style == "button":
            lines.append(_button(visible, False))
        elif style == "option":
            clicked = f'"{visible}"' in address
            lines.append("  " + _button(visible, clicked))
            if clicked:
                lines.insert(0, f"You have clicked {visible}.")
        elif style == "product":
            lines.append("\n" + _button(visible, visible in visited))
        else:
            lines.append(visible)
    return "".join(line + "\n" for line in lines)


def url(page: Page, session: object) -> str:
    """The address of a page; the original tells page kinds by its words, the query's included."""
    words = "+".join(page.keywords or ())
    if page.kind == "init":
        path = f"{session}"
    elif page.kind == "results":
        path = f"search_results/{session}/{words}/{page.page}"
    elif page.kind == "item":
        path = (
            f"item_page/{session}/{page.asin}/{words}/{page.page}/{json.dumps(dict(page.options))}"
        )
    elif page.kind == "sub":
        path = (
            f"item_sub_page/{session}/{page.asin}/{words}/{page.page}/{SECTIONS[page.section]}/"
            f"{dict(page.options)}"
        )
    else:
        path = f"done/{session}/{page.asin}/{dict(page.options)}"
    return "http://127.0.0.1:3000/" + path


def place(page: Page) -> str:
    """What the original takes the page for when ``< prev`` or ``next >`` is clicked."""
    address = url(page, "")
    return next(
        (
            name
            for name in ("search_results", "item_page", "item_sub_page", "done")
            if name in address
        ),
        "",
    )


def _button(label: str, clicked: bool) -> str:
    mark = "clicked button" if clicked else "button"
    return f"[{mark}] {label} [{mark}_]"


def _visible(segments: Sequence[Segment]) -> list[Segment]:
    """White space as the original's HTML parser leaves it: none with a line break, else a space."""
    kept: list[Segment] = []
    for style, segment in segments:
        if not segment.strip(_SPACES):
            if not segment or "\n" in segment:
                continue
            segment = " "
        kept.append((style, segment))
    return kept
