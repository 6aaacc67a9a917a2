"""What is published, as data: each figure with where it is from (``figures.yml``)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qvlib.base.yaml_text import parse_yaml
from qvlib.report.formats import interval

FILE = Path(__file__).with_suffix(".yml")
SECOND_HAND = "S"
SOURCES = {
    "P": "the paper (arXiv 2409.09345) or its public pages",
    SECOND_HAND: "second-hand, from summaries of the paper: marked ?",
    "C": "read in its public code",
}
"""What the marks of sources mean; any other is a relative's arXiv number."""
UNKNOWN = "?"


@functools.cache
def figures() -> dict[str, list[dict[str, Any]]]:
    """The published figures by what they are about: ``agents``, ``axes``, ``transfer``, ..."""
    return parse_yaml(FILE.read_text(encoding="utf-8"), FILE.name)


def told(figure: Mapping[str, Any], key: str, form: str) -> str:
    """A published number as tables have it: with a ? where it is second-hand, or alone a ?."""
    if key not in figure:
        return UNKNOWN
    value = figure[key]
    text = " to ".join(form.format(v) for v in (value if isinstance(value, list) else [value]))
    return f"{text} {UNKNOWN}" if is_doubtful(figure) else text


def is_doubtful(figure: Mapping[str, Any]) -> bool:
    """Whether a figure is second-hand or not verified."""
    return figure["source"] == SECOND_HAND or bool(figure.get("doubt"))


def source(figure: Mapping[str, Any]) -> str:
    """Where a figure is from, in a word."""
    named = figure["source"] if figure["source"] in SOURCES else f"arXiv {figure['source']}"
    return ", ".join(filter(None, (named, figure.get("where", ""))))


def bounded(name: str, mean: float | None, bounds: Sequence[float] | None) -> dict[str, Any]:
    """A number of ours and its interval, as columns of a table: ``_low`` and ``_high``."""
    low, high = bounds or (None, None)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def ours(row: Mapping[str, Any], what: str, form: str) -> str:
    """A number of ours as tables have it, with its interval where there is one."""
    value, low, high = (row.get(f"{what}{end}") for end in ("", "_low", "_high"))
    if value is None or math.isnan(value):
        return ""
    return f"{value:{form}} {interval(low, high, form)}".strip()
