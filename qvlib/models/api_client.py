"""Requests to an OpenAI-compatible chat server.

One place that retries, limits, counts, and names what went wrong.

The key is read from an environment variable at the moment of connecting. It is no field of anything
here, and is struck out of whatever a server says before that gets into a message.
"""

from __future__ import annotations

import logging
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

from qvlib.base.addresses import proxy_variable, wrong_base_url, wrong_key_variable
from qvlib.base.errors import QvlibError
from qvlib.base.keys import redacted
from qvlib.base.paths import display_path
from qvlib.models.api_answers import LOG, Fault, read_answer, retry_after, words
from qvlib.models.api_cache import Reply, ReplyCache
from qvlib.models.api_refusals import LOOKED_AT, done_about, wrong_refusals

RETRIED = (408, 409, 425, 429)  # HTTP states that may pass, besides all from 500 on
REMEDIES = {
    401: "set the environment variable {variable} to a valid key of this server",
    402: "see to the account's balance or choose another server",
    403: "the key in {variable} may not do this: choose another model or key",
    404: "no such model or address: correct the model, or api_base_url, which mostly ends in /v1",
    429: "lower api_in_flight or raise api_retries",
}
QUOTA = (
    "trying again cannot help: see to the account's balance and limits, or choose another server"
)
SAID = 160  # characters of a server's own words in a message
LONGEST = 299  # characters of a message
LONGEST_PAUSE = 60.0  # seconds between two tries where the server names none
FEW = 20  # replies, of which at least one should be of use
DECLINED = "declined"  # the finish reason of an empty reply in the place of a refusal to answer
CUT, EMPTY, TALK = "were cut off", "are empty", "are other text"
DECLINE = "were declined by the server's filter or the model"
FATAL = {  # what ends a run -> the remedy
    CUT: "raise max_action_tokens ({max_tokens}): a thought may take them all",
    EMPTY: f"{LOG}, mend it{{kept}}",
    DECLINE: "choose another model or server, or other tasks",
}
log = logging.getLogger("qvlib")


class Refused(QvlibError):
    """The server takes the request itself for wrong (HTTP 400, 413 or 422). text: its words."""

    text = ""


class TooLong(Refused):
    """The conversation is longer than the model reads."""


@dataclass
class ApiClient:
    """One model behind an OpenAI-compatible ``base_url``; the agents of a run share one client.

    Messages name the parameters ``api_*`` of a run, which these are.

    key_variable: NAME of the environment variable that holds the key; servers without keys need
        none.
    timeout: seconds a try may be silent. deadline: seconds until its answer must be whole.
    longest_answer: bytes of an answer.
    retries: further tries after the first, after a random wait of at most ``first_wait`` seconds,
        then twice that and so on up to ``LONGEST_PAUSE``; what the server asks for in Retry-After
        goes before, and where it is beyond ``longest_wait`` seconds, ends the retrying.
    max_in_flight: requests under way at once.
    n_mode: auto asks for all draws of a state in one request and sends the rest singly where the
        server returns fewer; each sends a request a draw, so that each draw has its own seed.
    cache: JSONL file of the replies; None remembers them only in this process. offline: refuse any
        request.
    price_prompt, price_completion: USD per million tokens.
    refusals: wordings of a server's refusals and what is done about them, before those of
        ``api_refusals.TABLE``.
    usage: requests, retries, prompt_tokens, completion_tokens, reused_prompt_tokens (which the
        server had in its own cache), unmetered (requests without token counts), seconds (summed
        over requests), usd (if there are prices), proposals, distinct (proposals that differ from
        all others of their state), cached (draws found in the cache), cached_tokens (what those had
        cost), cut_off (replies that reached max_tokens), declined (draws that the server or the
        model refused to answer, taken for empty replies), shortened (requests of a conversation
        that was too long for the model).
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    retries: int = 6
    deadline: float = 300.0
    longest_answer: int = 8_000_000
    max_in_flight: int = 16
    first_wait: float = 1.0
    longest_wait: float = 600.0
    n_mode: Literal["auto", "each"] = "auto"
    cache: str | Path | None = None
    offline: bool = False
    price_prompt: float | None = None
    price_completion: float | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)
    usage: Counter = field(default_factory=Counter)
    replies: ReplyCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The offending values are not shown: they may be a key that was put into the wrong place.
        for name, wrong in (
            ("api_key_variable", wrong_key_variable(self.key_variable)),
            ("api_base_url", wrong_base_url(self.base_url)),
            ("api_refusals", wrong_refusals(self.refusals)),
        ):
            if wrong:
                raise QvlibError(f"{name}: {wrong}")
        if self.n_mode not in ("auto", "each"):
            raise QvlibError(f"api_n {self.n_mode!r:.60} is unknown; give auto or each")
        if self.max_in_flight < 1 or self.retries < 0:
            raise QvlibError("api_in_flight must be at least 1 and api_retries at least 0")
        if min(self.timeout, self.deadline, self.longest_answer) <= 0:
            raise QvlibError("api_timeout, api_deadline and api_longest_answer must be above 0")
        self.replies = ReplyCache(self.cache)
        self.takes_n = self.n_mode == "auto"  # until the server shows that it does not
        self._slots = threading.BoundedSemaphore(self.max_in_flight)
        self._lock = threading.Lock()
        self._openai: Any = None
        self._renamed: dict[str, str] = {}  # field -> its other name; "": it is left out
        self.of_use = False  # whether any reply was; until then flaws of the first are counted
        self._flaws: Counter[str] = Counter()
        self._declined: set[str] = set()  # prompts of replies without use
        self._told: set[str] = set()

    def count(self, **amounts: float) -> None:
        """Add to ``usage``."""
        with self._lock:
            self.usage.update(amounts)

    def look_at(self, reply: Reply, named: bool, prompt: str, max_tokens: int) -> None:
        """See whether the first replies are of any use, before more are paid for.

        named: whether the reply names an action. prompt: of the reply; one that is declined counts
        once. max_tokens: the longest reply.

        Raises:
            QvlibError: none of the first ``FEW`` is.
        """
        with self._lock:
            if self.of_use or named:
                self.of_use = True
                return
            flaw = _flaw(reply)
            if flaw == DECLINE and prompt in self._declined:
                return
            self._declined.add(prompt)
            self._flaws[flaw] += 1
            if self._flaws.total() < FEW:
                return
            flaw, count = self._flaws.most_common(1)[0]
            self.of_use = flaw not in FATAL  # told once
            what = f"none of the first {self._flaws.total()} replies names an action: "
            what += f"{count} {flaw}"
        if flaw in FATAL:
            kept = "" if self.cache is None else f" and delete {display_path(self.replies.path)}"
            self._fail(what, FATAL[flaw].format(max_tokens=max_tokens, kept=kept))
        self._tell(f"{what}; is the model told how to reply?")

    def complete(
        self,
        body: Mapping[str, Any],
        n: int,
        seed: Callable[[int], int],
        stopped: threading.Event | None = None,
    ) -> list[Reply | None]:
        """At most ``n`` replies to a request.

        Beside other replies, None stands in the place of a refusal to answer (null content). Where
        the server declines the prompt, or the model again and again, replies are empty.

        body: the request's JSON without ``n`` and ``seed``, or with its own; a field that is None
            is left out.
        seed: the seed for the i-th redraw, 0 being the first draw: the same seed may only bring the
            same refusal again.
        stopped: when set, nothing more is retried.

        Raises:
            TooLong: the conversation is longer than the model reads.
            Refused: HTTP 400, 413 or 422 that the table of refusals knows no way about.
            QvlibError: another answer that retrying cannot mend, or too many tries.
        """
        seen: Counter[str] = Counter()
        redraws = 0

        def attempt() -> list[Reply | None]:
            nonlocal redraws
            if stopped.is_set():
                raise Fault("another request failed", "mend that")
            try:
                return self._ask({"n": n if n > 1 else None, "seed": seed(redraws), **body}, n)
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
        if redraws > self.retries:  # each try was declined
            return self._decline(n)
        tries = sum(seen.values())
        what = "; ".join(
            f"{kind} (x{count})" if count > 1 else kind for kind, count in seen.most_common()
        )
        self._fail(
            f"no usable reply in {tries} {'try' if tries == 1 else 'tries'}: {what}", fault.remedy
        )

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next try: what the server asks for, else exponential back-off.

        Both with jitter.
        """
        fault: Any = state.outcome.exception() if state.outcome else None
        if fault.redraw:
            return 0.0
        if fault.wait:
            if fault.wait > LONGEST_PAUSE:
                self._tell(f"{fault.seen}, and asks to wait {fault.wait:.0f} s, which is done")
            return fault.wait + random.uniform(0, self.first_wait)
        return wait_random_exponential(multiplier=self.first_wait, max=LONGEST_PAUSE)(state)

    def _ask(self, asked: Mapping[str, Any], n: int) -> list[Reply | None]:
        """The replies to a request, sent in the fields that the server takes."""
        while True:
            sent = self._as_taken(asked)
            try:
                return self._read(self._send(sent), n)
            except Refused as refusal:
                what, *fields = done_about(refusal.text, sent, self.refusals) or [""]
                if what == "empty":
                    return self._decline(n)
                if what == "shorten":
                    self._tell("the model reads less than prompt_tokens; conversations are cut")
                    raise TooLong(str(refusal)) from None
                if not fields:
                    raise
                self._learn(fields[0], "".join(fields[1:]))
                if self._as_taken(asked) == sent:  # renamed to and fro
                    raise

    def _as_taken(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A request without what is None, and with the fields renamed that the server refused."""
        sent = {name: value for name, value in asked.items() if value is not None}
        for name, other in self._renamed.copy().items():
            if name in sent:
                value = sent.pop(name)
                sent |= {other: value} if other else {}
        return sent

    def _learn(self, name: str, other: str) -> None:
        with self._lock:
            if name in self._renamed:
                return
            self._renamed[name] = other
        instead = f"{other} is sent instead" if other else "it is left out from now on"
        self._tell(f"the server does not take the field {name}; {instead}")

    def _decline(self, n: int) -> list[Reply | None]:
        self.count(declined=n)
        self._tell("a prompt was declined; replies to it count as empty")
        return [Reply("", DECLINED)] * n

    # -- one try ----------------------------------------------------------------------------

    def _send(self, body: dict[str, Any]) -> str:
        """The body of the server's answer, as text."""
        connection = self._connect()
        import openai

        from qvlib.models.api_http import within

        rest = {k: v for k, v in body.items() if k not in ("model", "messages")}
        create = connection.chat.completions.with_raw_response.create

        def answer() -> Any:
            return create(model=body["model"], messages=body["messages"], extra_body=rest)

        failed: Exception
        with self._slots:
            started = time.perf_counter()
            try:
                return within(self.deadline, answer).text
            except openai.APITimeoutError:
                failed = Fault(
                    f"no answer within {self.timeout:g} s",
                    "raise api_timeout or lower api_in_flight",
                )
            except openai.APIConnectionError as error:
                failed = self._unconnected(error.__cause__ or error)
            except openai.APIStatusError as error:
                failed = error
            finally:
                self.count(requests=1, seconds=time.perf_counter() - started)
        if isinstance(failed, openai.APIStatusError):
            failed = self._status(failed)
        # Raised out here, so that no exception carries the request with its headers along.
        raise failed

    def _unconnected(self, cause: BaseException) -> Exception:
        """What ended a request before its answer was whole."""
        if isinstance(cause, Fault):
            return cause
        if isinstance(cause, QvlibError):
            return QvlibError(self._line(str(cause), ""))
        proxy = proxy_variable(self.base_url)
        by = f" by the proxy of {proxy}" if proxy else ""
        return Fault(
            f"connection failed{by} ({type(cause).__name__}: {self._said(str(cause))})",
            "start the server or correct api_base_url"
            + (f", or set {proxy} to a proxy that works" if proxy else ""),
        )

    def _status(self, error: Any) -> Fault:
        """The fault of an HTTP state that may pass; the error of one that will not."""
        status, headers, text = error.status_code, error.response.headers, error.response.text
        otherwise = (
            LOG if status >= 500 else "correct what it names, or leave that field out by api_extra"
        )
        if status < 400:
            otherwise = "give the address that it leads to as api_base_url"
        remedy = REMEDIES.get(status, otherwise).format(
            variable=self.key_variable or "that api_key_variable names"
        )
        # What a server says to a wrong key may quote a part of the key.
        said = "" if status in (401, 403) else self._said(words(text))
        seen = f"HTTP {status}" + (f" {said!r}" if said else "")
        wait = retry_after(headers.get("retry-after-ms"), headers.get("retry-after"))
        if status < 500 and done_about(text, {}, self.refusals) == ["end"]:
            self._fail(seen, QUOTA)
        if status not in RETRIED and status < 500:
            refused = Refused if status in (400, 413, 422) else QvlibError
            failed = refused(self._line(f"the request was refused: {seen}", remedy))
            if isinstance(failed, Refused):
                failed.text = text[:LOOKED_AT]
            raise failed
        if wait > self.longest_wait:
            self._fail(
                f"{seen}, and asks to wait {wait:.0f} s",
                f"wait that long, or raise api_longest_wait ({self.longest_wait:g} s)",
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
                from qvlib.models.api_http import Bounded

                self._openai = OpenAI(
                    api_key=key or "none",
                    base_url=self.base_url,
                    timeout=self.timeout,
                    max_retries=0,
                    http_client=Bounded(self.base_url, self.deadline, self.longest_answer),
                )
            return self._openai

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip() if self.key_variable else ""

    def _said(self, text: str) -> str:
        """One line of what a server says, without the key."""
        line = " ".join(redacted(text[:LOOKED_AT], self._key()).split())
        line = "".join(sign if sign.isprintable() else "?" for sign in line)
        return line if len(line) <= SAID else line[: SAID - 3] + "..."

    def _line(self, what: str, remedy: str) -> str:
        kept = "; what is finished is kept: run again to go on" if self.cache is not None else ""
        where = f"{self.base_url:.80}, model {self.model!r:.60}: "
        end = (f"; {remedy}" if remedy else "") + kept
        left = LONGEST - len(where) - len(end)
        return where + (what if len(what) <= left else what[: left - 3] + "...") + end

    def _fail(self, what: str, remedy: str) -> NoReturn:
        raise QvlibError(self._line(what, remedy))

    def _tell(self, what: str) -> None:
        """Log it, each thing once."""
        with self._lock:
            if what in self._told:
                return
            self._told.add(what)
        log.warning("%s", f"{self.base_url:.80}, model {self.model!r:.60}: {what}"[:LONGEST])


def _flaw(reply: Reply) -> str:
    """Why a reply names no action."""
    if reply.finish_reason == DECLINED:
        return DECLINE
    if reply.finish_reason == "length":
        return CUT
    return TALK if reply.text.strip() else EMPTY


__all__ = ["ApiClient", "Refused", "TooLong"]
