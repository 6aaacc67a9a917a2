"""What others wrote is shown as text: in Markdown as notebooks render it, in HTML, on terminals."""

import html
import random
from html.parser import HTMLParser

import pandas as pd
import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune as render

from qvlib.base import markup
from qvlib.report import source, tables

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</code></pre><svg onload=alert(1)>",
    "[click](javascript:alert(1))",
    "![i](javascript:alert(1))",
    "[a]: javascript:alert(1)\n\n[a]",
    "<javascript:alert(1)>",
    "`tick` ``two`` ```three",
    "a\\`<b>x</b>",
    "a\\|<img src=x onerror=alert(1)>|",
    "x | y\\",
    "# heading\n\n- item\n1. one",
    "- item",
    "1. one",
    "> quoted",
    "    indented",
    "***\n___\n---",
    "**bold** _lean_ __bold__ ~~struck~~",
    "$$\\href{javascript:alert(1)}{x}$$ and $a$ or \\(b\\)",
    "&lt;b&gt; &amp;#60;",
    "https://a.example www.a.example a@b.example",
    "a\nb\n\n<img src=x onerror=alert(1)>",
    "```mermaid\nx\n```",
    "term\n: definition",
    "| a |\n|---|\n| b |",
    "`a` <img src=x onerror=alert(1)> `b`",
    "<code>[x](javascript:alert(1))</code>",
    "",
)


class Seen(HTMLParser):
    """The elements and the text of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def words(text):
    """A text as a reader sees it: white space counts once."""
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    ("write", "allowed"),
    [
        (lambda text: f"Before {markup.literal(text)} after.", {"p", "br", "span"}),
        (lambda text: f"*{markup.literal(text)}*" if text else "", {"p", "br", "span", "em"}),
        (lambda text: f"It begins with {markup.code(text)}.", {"p", "br", "span", "code"}),
        (markup.code, {"p", "br", "span", "code"}),
        (markup.literal, {"p", "br", "span"}),
        (markup.quote, {"p", "br", "span", "blockquote"}),
    ],
)
def test_markdown_shows_the_text(text, write, allowed):
    rendered = render(write(text))
    seen = Seen(rendered.replace("<br>", "<br>\n"))
    assert set(seen.tags) <= allowed
    assert words(text) in words(seen.text)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip()])
def test_a_table_shows_the_text_and_keeps_its_columns(text):
    rows = pd.DataFrame({"as it is": [text], "as code": [markup.code(text)], "n": [1]})
    rendered = render(tables.markdown(rows))
    seen = Seen(rendered.replace("<br>", "<br>\n"))
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    assert set(seen.tags) <= table | {"code", "span", "br"} and seen.tags.count("td") == 3
    bare = "tick" in text or text.startswith(("`", "<code>"))  # which reads as what code made
    assert words(seen.text).count(words(text)) == 2 or bare
    assert len(tables.markdown(rows).splitlines()) == 3


def test_texts_of_any_characters():
    signs = "<>&[](){}!*_`~\\|$#^+-=.:/@'\" \n\ta1\u00e9\u4e2d\U0001f600\x1b\u202e"
    for seed in range(100):
        rng = random.Random(seed)
        text = "".join(rng.choice(signs) for _ in range(rng.randint(1, 24)))
        known = words(markup.visible(text))
        rendered = render(
            f"See {markup.literal(text)}, {markup.code(text)}.\n\n{markup.quote(text)}"
        )
        seen = Seen(rendered.replace("<br>", "<br>\n"))
        assert set(seen.tags) <= {"p", "br", "span", "code", "blockquote"}, text
        assert words(seen.text).count(known) >= 3, text
        assert Seen(f"<p>{markup.html(text)}</p>").text == markup.visible(text)


def test_plain_texts_stay_as_they_are():
    for text in (
        "Find me machine washable shirts with color: red, and price lower than 40.00 dollars",
        "+0.129 [+0.090, +0.170]",
        "-0.5",
        "control_q_n5",
        "Where was the director of 'The Bell' (1999) born?",
    ):
        assert markup.cell(text) == text
    assert markup.literal("price 3 [a]") == "price 3 [a]"
    assert markup.code("click[next >]") == "`click[next >]`"
    assert markup.code("click[large | tall]") == "<code>click[large \\| tall]</code>"


def test_what_code_made_is_a_cell_already():
    for text in (*HOSTILE, "search[red shirt]", "click[a | b]", "\x1b[2J"):
        made = markup.code(text)
        assert markup.cell(made) == made
    forged = "<code>[x](javascript:alert(1))</code>"
    assert "<code>" not in markup.cell(forged)


def test_a_terminal_is_told_nothing():
    text = "a\x1b]0;title\x07b\x1b[2J\rc\x9b1m\u202e\ud800\ttab\r\nline\x00"
    shown = markup.visible(text)
    assert shown == ("a\\x1b]0;title\\x07b\\x1b[2J\\rc\\x9b1m\\u202e\\ud800\ttab\r\nline\\x00")
    assert shown.encode() and markup.visible("日本 ☕ é") == "日本 ☕ é"
    assert html.unescape(markup.html("<\x1b>")) == "<\\x1b>"


def test_code_with_a_fence_in_it_ends_where_it_ends():
    def fenced():
        """An example::

        ```
        <img src=x onerror=alert(1)>
        ```
        """

    assert "img" not in Seen(render(source.code(fenced))).tags
