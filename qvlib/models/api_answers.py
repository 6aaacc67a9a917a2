"""What chat servers answer, read without trust: replies and token counts, or what is wrong."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qvlib.models.api_cache import Reply

LOG = "look into the server's log"


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
        body = json.loads(text)
    except ValueError:
        raise Fault(f"no valid JSON in an answer of {len(text)} characters", LOG) from None
    try:
        choices = body["choices"][:n]
        contents = [choice["message"]["content"] for choice in choices]
        if not all(content is None or isinstance(content, str) for content in contents):
            raise TypeError("content is no text")
        # Half a surrogate pair, as of an emoji that was cut, can be neither sent nor written.
        contents = [content and content.encode("utf-8", "replace").decode() for content in contents]
        usage = body.get("usage") or {}
        prompt, completion = (
            int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")
        )
        reused = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        # Such as an error with HTTP 200.
        raise Fault(
            f"no chat completion but {said(words(text))!r}", "give the base_url of a chat server"
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
            choice.get("finish_reason"),
            prompt if i == first else 0,
            shares[i],
            str(body.get("model") or ""),
        )
        for i, (choice, content) in enumerate(zip(choices, contents, strict=True))
    )
    return Answer(
        replies,
        prompt,
        completion,
        reused,
        bool(usage),
        _useless(choices) if first is None else None,
    )


def _useless(choices: list[dict[str, Any]]) -> Fault:
    if not choices:
        return Fault("empty choices", LOG)
    reasons = " or ".join(sorted({str(choice.get("finish_reason")) for choice in choices}))
    remedy = (
        "raise max_tokens"
        if reasons == "length"
        else "change the prompt or the model, which refuses"
    )
    return Fault(f"null content (finish_reason {reasons})", remedy, redraw=True)


def words(text: str) -> str:
    """The words in an error's body, which servers wrap in different ways."""
    try:
        body = json.loads(text)
    except ValueError:
        return text
    while isinstance(body, dict):
        body = next((body[k] for k in ("error", "message", "detail") if body.get(k)), str(body))
    return str(body)


def retry_after(milliseconds: str | None, value: str | None) -> float:
    """Seconds that the headers Retry-After-Ms or Retry-After (seconds or a date) ask to wait.

    0 if they do not.
    """
    for number, unit in ((milliseconds, 1000), (value, 1)):
        if number and re.fullmatch(r"\s*\d+(\.\d*)?\s*", number):
            return float(number) / unit
    parsed = email.utils.parsedate_tz(value) if value else None
    return max(0.0, email.utils.mktime_tz(parsed) - time.time()) if parsed else 0.0


__all__ = ["Answer", "Fault", "read_answer", "retry_after", "words"]
