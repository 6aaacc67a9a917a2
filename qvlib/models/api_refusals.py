"""What a server's refusal of a request means and what is done about it: one table of wordings.

A wording is a regular expression, looked for in the whole of the error's body in any case. What is
done: ``drop FIELD`` asks again without that field of the request, ``rename FIELD OTHER`` under
another name; ``shorten`` with a shorter conversation; ``empty`` counts the reply as an empty one;
``end`` ends the run at once, since trying again cannot help. A field is dropped only where replies
stay draws of the same distribution, so never the temperature. The parameter ``api_refusals`` puts
wordings of one's own before these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NOT_TAKEN = (
    r"(unsupported|not supported|unknown|unrecognized|unexpected|invalid|not (allowed|permitted)"
    r"|extra|forbidden|does not support)"
)


def _refuses(field: str) -> str:
    """The wording that a server does not know a field, in either order, near each other."""
    name = rf"(?<![\w]){field}(?![\w])"
    return rf"{_NOT_TAKEN}.{{0,160}}{name}|{name}.{{0,160}}{_NOT_TAKEN}"


TABLE: dict[str, str] = {
    r"context_length_exceeded|maximum context length|context (window|size|length)"
    r"|(prompt|input|request)[^.]{0,40} too (long|large|many tokens)": "shorten",
    r"content[_ ]filter|content[_ ]management[_ ]policy|content[_ ]policy|usage policy"
    r"|ResponsibleAI|data_inspection|prompt was flagged": "empty",
    r"insufficient_quota|exceeded your current quota|billing_hard_limit": "end",
    r"max_tokens.{0,80}(unsupported|not supported)|(unsupported|not supported).{0,80}max_tokens"
    r"|use.{0,20}max_completion_tokens": "rename max_tokens max_completion_tokens",
    _refuses("max_completion_tokens"): "rename max_completion_tokens max_tokens",
    _refuses("seed"): "drop seed",
    _refuses("stop"): "drop stop",
}
_FIELD = r"(?!model\b|messages\b)\w+"
_DONE = re.compile(rf"drop {_FIELD}|rename {_FIELD} {_FIELD}|shorten|empty|end")
LOOKED_AT = 4000  # characters of an error's body


def done_about(text: str, body: Mapping[str, object], own: Mapping[str, str]) -> list[str]:
    """What is done about a refusal of a request, as words of the table; nothing: none.

    Args:
        text: the error's body. body: the request's JSON, of which only fields that it has are
            dropped or renamed. own: wordings of one's own.
    """
    text = text[:LOOKED_AT]
    for wording, done in {**own, **TABLE}.items():
        kind, *fields = done.split()
        if fields and body.get(fields[0]) is None:
            continue
        if re.search(wording, text, re.IGNORECASE | re.DOTALL):
            return [kind, *fields]
    return []


def wrong_refusals(own: Mapping[str, str]) -> str:
    """What is wrong with wordings of one's own; empty if nothing is."""
    for wording, done in own.items():
        try:
            re.compile(wording)
        except re.error as error:
            return f"{wording[:60]!r} is no regular expression ({error}); correct it"
        if not _DONE.fullmatch(done):
            return (
                f"{done[:60]!r} is nothing that can be done; give drop FIELD, "
                "rename FIELD OTHER, shorten, empty or end"
            )
    return ""


__all__ = ["TABLE", "done_about", "wrong_refusals"]
