"""What chat servers answer, read without trust: replies and token counts, or what is wrong."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qvlib.models.api_cache import MOST_TOKENS, Reply

LOG = "look into the server's log"
ELSEWHERE = "give the address of a chat server as api_base_url"
LONGEST_WAIT = 1e9  # seconds; a date beyond it is no date


class Fault(Exception):
    """A try that failed in a way that may pass.

    seen, remedy: what was seen, and what to do if it stays. wait: seconds the server asks to wait.
    redraw: the same seed may only bring the same again.
    """

    def __init__(self, seen: str, remedy: str, wait: float = 0.0, redraw: bool = False) -> None:
        super().__init__(seen)
        self.seen, self.remedy, self.wait, self.redraw = seen, remedy, wait, redraw


@dataclass(frozen=True, slots=True)
class Answer:
    """The replies of one answer, None in the place of a refusal, and the tokens of all together.

    reused: prompt tokens that the server had in its own cache. metered: whether the server counts
        tokens.
    fault: why no reply is of use.
    """

    replies: tuple[Reply | None, ...]
    prompt_tokens: int
    completion_tokens: int
    reused: int
    metered: bool
    fault: Fault | None = None


def read_answer(text: str, n: int, said: Callable[[str], str]) -> Answer:
    """The answer to a request for ``n`` replies.

    Args:
        said: makes a server's words fit for a message.

    Raises:
        Fault: it is not JSON, or not that of a chat completion.
    """
    try:
        body = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        raise _no_json(text, said) from None
    try:
        choices = body["choices"][:n]
        contents = [_content(choice) for choice in choices]
        reasons = [choice.get("finish_reason") for choice in choices]
        usage = body.get("usage") or {}
        prompt, completion = (
            _count(usage, name) for name in ("prompt_tokens", "completion_tokens")
        )
        reused = _count(usage.get("prompt_tokens_details") or {}, "cached_tokens")
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError):
        # Such as an error with HTTP 200.
        raise Fault(
            f"no chat completion but {said(words(text))!r}",
            ELSEWHERE,
        ) from None
    # Servers count the tokens of all choices together.
    shares = [
        completion // len(contents) + (i < completion % len(contents)) for i in range(len(contents))
    ]
    first = next((i for i, content in enumerate(contents) if content is not None), None)
    replies = tuple(
        None
        if content is None
        else Reply(
            content,
            None if reason is None else str(reason),
            prompt if i == first else 0,
            shares[i],
            str(body.get("model") or ""),
        )
        for i, (reason, content) in enumerate(zip(reasons, contents, strict=True))
    )
    return Answer(
        replies,
        prompt,
        completion,
        reused,
        bool(usage),
        _useless(reasons) if first is None else None,
    )


def _no_json(text: str, said: Callable[[str], str]) -> Fault:
    """The fault of an answer that is a page, a stream, or cut off."""
    begins, remedy = text.lstrip().lower(), LOG
    if begins.startswith(("<!doctype", "<html")):
        remedy = ELSEWHERE
    elif begins.startswith(("data:", "event:")):
        remedy = "have the server, or what stands before it, send answers whole, not as streams"
    told = f"no valid JSON in an answer of {len(text)} characters"
    return Fault(f"{told}, {said(text)[:60]!r}" if begins else told, remedy)


def _content(choice: dict[str, Any]) -> str | None:
    """The text of a choice; None of one that the model refuses to answer.

    Of content in parts, those of text; of a call of a tool, the call as an action. What was cut off
    before any text, as in a thought, is empty.
    """
    message = choice["message"]
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part for part in map(_text_part, content) if part is not None)
    if content is None:
        called = [call["function"] for call in message.get("tool_calls") or ()]
        called += [message["function_call"]] if message.get("function_call") else []
        if called:
            content = _action(called[0])
        elif choice.get("finish_reason") == "length":
            content = ""
    if content is not None and not isinstance(content, str):
        raise TypeError("content is no text")
    # Half a surrogate pair, as of an emoji that was cut, can be neither sent nor written.
    return content and content.encode("utf-8", "replace").decode()


def _text_part(part: Any) -> str | None:
    """The text of a part of a content; None of a thought or an image."""
    if isinstance(part, str):
        return part
    return part["text"] if part.get("type") in (None, "text", "output_text") else None


def _action(call: dict[str, Any]) -> str:
    """A call of a tool as ``name[argument]``; of several arguments, as it is written."""
    name, arguments = call["name"], call.get("arguments") or "{}"
    try:
        values = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):  # cut off, or made up
        return f"{name}({arguments})"
    if not values:
        return str(name)
    if isinstance(values, dict) and len(values) == 1:
        return f"{name}[{next(iter(values.values()))}]"
    return f"{name}({arguments})"


def _count(usage: dict[str, Any], name: str) -> int:
    count = int(usage.get(name) or 0)
    if not 0 <= count <= MOST_TOKENS:
        raise ValueError(f"{name} is no count")
    return count


def _useless(reasons: list[Any]) -> Fault:
    if not reasons:
        return Fault("empty choices", LOG)
    told = " or ".join(sorted(set(map(str, reasons))))
    return Fault(
        f"null content (finish_reason {told})",
        "change the prompt or the model, which refuses",
        redraw=True,
    )


def words(text: str) -> str:
    """The words in an error's body, which servers wrap in different ways."""
    try:
        body = json.loads(text)
        while isinstance(body, dict):
            body = next((body[k] for k in ("error", "message", "detail") if body.get(k)), str(body))
        return str(body)
    except (ValueError, RecursionError):
        return text


def retry_after(milliseconds: str | None, value: str | None) -> float:
    """Seconds that the headers Retry-After-Ms or Retry-After (seconds or a date) ask to wait.

    0 if they do not.
    """
    for number, unit in ((milliseconds, 1000), (value, 1)):
        if number and re.fullmatch(r"\s*\d+(\.\d*)?\s*", number):
            return min(LONGEST_WAIT, float(number) / unit)
    try:
        parsed = email.utils.parsedate_tz(value) if value else None
        return max(0.0, email.utils.mktime_tz(parsed) - time.time()) if parsed else 0.0
    except (ValueError, OverflowError):  # no day of any calendar
        return LONGEST_WAIT


__all__ = ["Answer", "Fault", "read_answer", "retry_after", "words"]
