"""What others wrote (tasks, pages, models' replies) as text: on a terminal, in HTML, in Markdown.

Escapes are numeric character references, which are text wherever Markdown or HTML is read.
"""

from __future__ import annotations

import re
from html import escape, unescape

# Control characters but line ends and tabs, marks that turn the direction of text, halves of pairs.
_HIDDEN = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
_LIVE = re.compile(
    r"[&<>*`~\\|@$]"  # references, tags, emphasis, code, cells of tables, addresses, formulas
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis too, but not within a word
    r"|\](?=[(\[:])"  # links and their targets
    r"|:(?=//)|(?<=www)\."  # addresses that become links by themselves
    r"|\r?\n",
    re.IGNORECASE,
)
_OPENS = re.compile(r"\A(?:[-+=#:\[]|\d+[.)])")  # a heading, a list, a definition
_NOT_IN_TICKS = re.compile(r"\A\Z|\A\s|\s\Z|[`|\\$\n]")
_TICKS, _ELEMENT = re.compile(r"`[^`]+`"), re.compile(r"<code>(.*)</code>", re.DOTALL)


def visible(text: str) -> str:
    """The text with what a terminal would obey, such as an escape, spelt out: ``\\x1b``.

    Tabs and line ends stay.
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def html(text: str) -> str:
    """The text for HTML, also between quotes."""
    return escape(visible(text))


def literal(text: str) -> str:
    """The text for Markdown, as a part of a line or all of it; line ends stay line ends."""
    return _OPENS.sub(_referred, _inline(text))


def quote(text: str) -> str:
    """The text as a quotation in Markdown."""
    return f"> {literal(text)}"


def code(text: str) -> str:
    """The text as code in Markdown, within a line or a table's cell."""
    if _NOT_IN_TICKS.search(text) or visible(text) != text:
        return _element(text)
    return f"`{text}`"


def cell(text: str) -> str:
    """The text for a cell of a table in Markdown; what ``code`` made is left as it is."""
    if _TICKS.fullmatch(text) and code(text[1:-1]) == text:
        return text
    element = _ELEMENT.fullmatch(text)
    if element and _element(unescape(_without_tags(element[1]))) == text:
        return text
    return _inline(text.replace("\n", " "))


def _element(text: str) -> str:
    return f"<code>{_inline(text)}</code>"


def _inline(text: str) -> str:
    return _LIVE.sub(_referred, visible(text.strip()))


def _without_tags(text: str) -> str:
    return re.sub("</?span>", "", text).replace("<br>", "\n").replace("\\|", "|")


def _referred(found: re.Match[str]) -> str:
    if found[0].endswith("\n"):
        return "<br>"
    if found[0] == "|":
        return "\\|"
    if found[0] in "$\\":  # in elements of their own no two of them enclose a formula
        return f"<span>&#{ord(found[0])};</span>"
    return "".join(c if c.isalnum() else f"&#{ord(c)};" for c in found[0])
