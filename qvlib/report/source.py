"""The library's own code, for a reader of a notebook: the source of what the next cells call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any


def code(*things: Callable[..., Any]) -> str:
    """The source of functions and classes as Markdown; where it is rendered, it is highlighted."""
    return "\n\n".join(f"`{thing.__module__}`\n\n{_block(thing)}" for thing in things)


def _block(thing: Callable[..., Any]) -> str:
    source = inspect.getsource(thing).rstrip()
    fence = max(["``", *re.findall("`+", source)], key=len) + "`"  # longer than any within
    return f"{fence}python\n{source}\n{fence}"
