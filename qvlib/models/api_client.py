"""Requests to an OpenAI-compatible chat server.

One place that retries, limits, counts, and names what went wrong.

The key is read from an environment variable at the moment of connecting. It is no field of anything
here, and is struck out of whatever a server says before that gets into a message.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from qvlib.base.addresses import wrong_base_url, wrong_key_variable
from qvlib.base.errors import QvlibError
from qvlib.models.api_answers import LOG, Fault, read_answer, retry_after, words
from qvlib.models.api_cache import Reply, ReplyCache

RETRIED = (408, 409, 425, 429)  # HTTP states that may pass, besides all from 500 on
REMEDIES = {
    401: "set the environment variable {variable} to a valid key of this server",
    402: "see to the account's balance or choose another server",
    403: "the key in {variable} may not do this: choose another model or key",
    404: "no such model or address: correct the model, or base_url, which mostly ends in /v1",
    429: "lower max_in_flight or raise retries",
}
SAID = 240  # characters of a server's own words in a message


class Refused(QvlibError):
    """The server takes the request itself for wrong (HTTP 400 or 422)."""


@dataclass
class ApiClient:
    """One model behind an OpenAI-compatible ``base_url``; the agents of a run share one client.

    key_variable: NAME of the environment variable that holds the key; servers without keys need
        none.
    timeout: seconds a try may be silent. retries: further tries after the first, after a random
        wait of at most ``first_wait`` seconds, then twice that and so on up to ``longest_wait``;
        what the server asks for in Retry-After goes before, and where it is beyond
        ``longest_wait``, ends the retrying.
    max_in_flight: requests under way at once.
    n_mode: auto asks for all draws of a state in one request and sends the rest singly where the
        server returns fewer; each sends a request a draw, so that each draw has its own seed.
    cache: JSONL file of the replies; None remembers them only in this process. offline: refuse any
        request.
    price_prompt, price_completion: USD per million tokens.
    usage: requests, retries, prompt_tokens, completion_tokens, reused_prompt_tokens (which the
        server had in its own cache), unmetered (requests without token counts), seconds (summed
        over requests), usd (if there are prices), proposals, distinct (proposals that differ from
        all others of their state), cached (draws found in the cache), cached_tokens (what those had
        cost), cut_off (replies that reached max_tokens).
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    retries: int = 6
    max_in_flight: int = 16
    first_wait: float = 1.0
    longest_wait: float = 60.0
    n_mode: Literal["auto", "each"] = "auto"
    cache: str | Path | None = None
    offline: bool = False
    price_prompt: float | None = None
    price_completion: float | None = None
    usage: Counter = field(default_factory=Counter)
    replies: ReplyCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The offending values are not shown: they may be a key that was put into the wrong place.
        for name, wrong in (
            ("key_variable", wrong_key_variable(self.key_variable)),
            ("base_url", wrong_base_url(self.base_url)),
        ):
            if wrong:
                raise QvlibError(f"{name}: {wrong}")
        if self.n_mode not in ("auto", "each"):
            raise QvlibError(f"n_mode {self.n_mode!r} is unknown; give auto or each")
        if self.max_in_flight < 1 or self.retries < 0 or self.timeout <= 0:
            raise QvlibError(
                "max_in_flight must be at least 1, retries at least 0, timeout above 0 seconds"
            )
        self.replies = ReplyCache(self.cache)
        self.takes_n = self.n_mode == "auto"  # until the server shows that it does not
        self._slots = threading.BoundedSemaphore(self.max_in_flight)
        self._lock = threading.Lock()
        self._openai: Any = None

    def count(self, **amounts: float) -> None:
        """Add to ``usage``."""
        with self._lock:
            self.usage.update(amounts)

    def complete(
        self,
        body: Mapping[str, Any],
        n: int,
        seed: Callable[[int], int],
        stopped: threading.Event | None = None,
    ) -> list[Reply | None]:
        """At most ``n`` replies to a request.

        Beside other replies, None stands in the place of a refusal (null content).

        body: the request's JSON without ``n`` and ``seed``, or with its own; a field that is None
            is left out.
        seed: the seed for the i-th redraw, 0 being the first draw: the same seed may only bring the
            same refusal again.
        stopped: when set, nothing more is retried.

        Raises:
            Refused: HTTP 400 or 422.
            QvlibError: another answer that retrying cannot mend, or too many tries.
        """
        seen: Counter[str] = Counter()
        redraws = 0

        def attempt() -> list[Reply | None]:
            nonlocal redraws
            if stopped.is_set():
                raise Fault("another request failed", "mend that")
            asked = {"n": n if n > 1 else None, "seed": seed(redraws), **body}
            try:
                return self._read(self._send({k: v for k, v in asked.items() if v is not None}), n)
            except Fault as fault:
                seen[fault.seen] += 1
                redraws += fault.redraw
                raise

        stopped = stopped or threading.Event()
        retrying = Retrying(
            retry=retry_if_exception_type(Fault),
            stop=stop_after_attempt(self.retries + 1) | stop_when_event_set(stopped),
            wait=self._wait,
            sleep=sleep_using_event(stopped),
            before_sleep=lambda _: self.count(retries=1),
        )
        try:
            return retrying(attempt)
        except RetryError as error:
            fault: Any = error.last_attempt.exception()
        tries = sum(seen.values())
        what = "; ".join(
            f"{kind} (x{count})" if count > 1 else kind for kind, count in seen.items()
        )
        self._fail(
            f"no usable reply in {tries} {'try' if tries == 1 else 'tries'}: {what}", fault.remedy
        )

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next try: what the server asks for, else exponential back-off.

        Both with jitter.
        """
        fault: Any = state.outcome.exception() if state.outcome else None
        if fault.wait:
            return fault.wait + random.uniform(0, self.first_wait)
        return wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait)(state)

    # -- one try ----------------------------------------------------------------------------

    def _send(self, body: dict[str, Any]) -> str:
        """The body of the server's answer, as text."""
        connection = self._connect()
        import openai

        with self._slots:
            started = time.perf_counter()
            try:
                rest = {k: v for k, v in body.items() if k not in ("model", "messages")}
                return connection.chat.completions.with_raw_response.create(
                    model=body["model"], messages=body["messages"], extra_body=rest
                ).text
            except openai.APITimeoutError:
                failed: Fault | openai.APIStatusError = Fault(
                    f"no answer within {self.timeout:g} s", "raise timeout or lower max_in_flight"
                )
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                failed = Fault(
                    f"connection failed ({type(cause).__name__}: {self._said(str(cause))})",
                    "start the server or correct base_url",
                )
            except openai.APIStatusError as error:
                failed = error
            finally:
                self.count(requests=1, seconds=time.perf_counter() - started)
        # Raised out here, so that no exception carries the request with its headers along.
        raise failed if isinstance(failed, Fault) else self._status(failed)

    def _status(self, error: Any) -> Fault:
        """The fault of an HTTP state that may pass; the error of one that will not."""
        status, headers = error.status_code, error.response.headers
        otherwise = (
            LOG
            if status >= 500
            else "correct what it names: the prompt, or the sampling parameters"
        )
        remedy = REMEDIES.get(status, otherwise).format(
            variable=self.key_variable or "that key_variable names"
        )
        # What a server says to a wrong key may quote a part of the key.
        said = "" if status in (401, 403) else self._said(words(error.response.text))
        seen = f"HTTP {status}" + (f" {said!r}" if said else "")
        wait = retry_after(headers.get("retry-after-ms"), headers.get("retry-after"))
        if status not in RETRIED and status < 500:
            self._fail(
                f"the request was refused: {seen}",
                remedy,
                Refused if status in (400, 422) else QvlibError,
            )
        if wait > self.longest_wait:
            self._fail(
                f"{seen}, and asks to wait {wait:.0f} s",
                f"wait that long, or raise longest_wait ({self.longest_wait:g} s)",
            )
        return Fault(seen, remedy, wait)

    def _read(self, text: str, n: int) -> list[Reply | None]:
        """The replies of an answer, which are paid for even if none is of use."""
        answer = read_answer(text, n, self._said)
        self.count(
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            reused_prompt_tokens=answer.reused,
            unmetered=not answer.metered,
        )
        if self.price_prompt is not None or self.price_completion is not None:
            self.count(
                usd=(
                    answer.prompt_tokens * (self.price_prompt or 0.0)
                    + answer.completion_tokens * (self.price_completion or 0.0)
                )
                / 1e6
            )
        if answer.fault:
            raise answer.fault
        return list(answer.replies)

    # -- key and words ----------------------------------------------------------------------

    def _connect(self) -> Any:
        with self._lock:
            if self._openai is None:
                try:
                    from openai import OpenAI
                except ImportError:
                    raise QvlibError(
                        "the openai package is not installed; `pip install 'qvlib[api]'`"
                    ) from None
                key = self._key()
                # As a header it would be refused, and shown by that error.
                if not re.fullmatch(r"[!-~]*", key):
                    raise QvlibError(
                        f"the environment variable {self.key_variable} holds blanks or signs that "
                        "no key has; set it again"
                    )
                self._openai = OpenAI(
                    api_key=key or "none",
                    base_url=self.base_url,
                    timeout=self.timeout,
                    max_retries=0,
                )
            return self._openai

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip() if self.key_variable else ""

    def _said(self, text: str) -> str:
        """One line of what a server says, without the key."""
        key = self._key()
        line = " ".join((text.replace(key, "***") if key else text).split())
        return line if len(line) <= SAID else line[: SAID - 3] + "..."

    def _fail(self, what: str, remedy: str, kind: type[QvlibError] = QvlibError) -> NoReturn:
        kept = "; what is finished is kept: run again to go on" if self.cache is not None else ""
        raise kind(f"{self.base_url}, model {self.model!r}: {what}; {remedy}{kept}")


__all__ = ["ApiClient", "Refused"]
