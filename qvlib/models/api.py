"""An agent over any OpenAI-compatible chat server.

Such are OpenAI, vLLM, llama.cpp, Ollama and ``transformers serve``.

A draw is named by (request.key, k) and has a seed of its own, derived from that name. A server that
takes ``n`` draws all that a state misses from the seed of the first of them; a server that does not
is asked draw by draw. Either way the reply is kept under the name of its draw, so answers do not
depend on the batch, on how many requests are in flight, or on how often a run was stopped. What
``n`` costs: asked for 5 and later for 10, the second 5 come from another seed than 10 asked at once
(the same distribution, other draws); ``n_mode="each"`` makes each draw a function of its name
alone, and pays for the prompt at each. How far a seed decides a reply is the server's affair: only
the cache is exact.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path
from qvlib.base.seeding import generator
from qvlib.core.types import Cost, Proposal, Request, State
from qvlib.models.api_cache import Reply
from qvlib.models.api_client import ApiClient, Refused, TooLong

HALVINGS = 12  # of a conversation that is too long


@dataclass(frozen=True, slots=True)
class _Draw:
    """The k-th reply to a request body."""

    body: Mapping[str, Any]
    key: tuple[Any, ...]
    k: int
    id: str
    state: State

    def seed(self, redraw: int = 0) -> int:
        """A seed of 31 bits; what a refused draw is drawn again from is another."""
        return _seed(self.key, self.k, *((redraw,) if redraw else ()))


def _seed(key: tuple[Any, ...], *parts: int) -> int:
    return int(generator(*key, "api", *parts).integers(2**31))


@dataclass(frozen=True)
class ApiAgent:
    """Samples actions from a chat server.

    temperature: 0 is greedy: one reply a prompt, given n times.
    messages: the chat of a state. shorter: (state, k) -> the chat cut to a 2^k-th of its budget,
        for a server whose model reads less; None: it cannot be cut.
    parse: (reply text, state) -> action; an unparsable reply returns itself.
    unparsable: (reply text, state) -> whether it names no action, which ``Proposal.unparsable``
        counts; None counts none.
    extra: more fields of the request's JSON; None leaves one out that the server does not know, as
        in ``{"max_tokens": None, "max_completion_tokens": 128}`` or ``{"seed": None}``.
    """

    client: ApiClient
    messages: Callable[[State], list[dict[str, str]]]
    parse: Callable[[str, State], str]
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    unparsable: Callable[[str, State], bool] | None = None
    shorter: Callable[[State, int], list[dict[str, str]]] | None = None

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        """For each request ``request.n`` proposals, with tokens as the server counted them.

        Raises:
            QvlibError: the server gives no usable reply, refuses, or may not be asked
                (``offline``).
        """
        rows = [self._draws(request) for request in requests]
        ids = [draw.id for row in rows for draw in row]
        replies = self.client.replies.get(ids)
        self._count_cached(replies)
        drawn = {draw.id: draw for row in rows for draw in row}
        self._look_at([(drawn[id], reply) for id, reply in replies.items()])
        missing = [[draw for draw in row if draw.id not in replies] for row in _distinct(rows)]
        if any(missing):
            self._must_be_online(next(draw for row in missing for draw in row))
            if self.client.takes_n:
                self._ask([row for row in missing if row])
                replies = self.client.replies.get(ids)
            self._ask([[draw] for row in missing for draw in row if draw.id not in replies])
            replies = self.client.replies.get(ids)
        return [
            self._proposals(request.state, [(draw, replies[draw.id]) for draw in row])
            for request, row in zip(requests, rows, strict=True)
        ]

    def _draws(self, request: Request) -> list[_Draw]:
        body = {
            "model": self.client.model,
            "messages": self.messages(request.state),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "stop": list(self.stop) or None,
            "logprobs": None,  # a part of the names of draws that caches on disk hold
            **self.extra,
        }
        # Greedy is one draw, whoever asks.
        names = (
            [((), 0)] * request.n
            if self.temperature == 0
            else [(request.key, k) for k in range(request.n)]
        )
        return [
            _Draw(body, key, k, _digest(body, _seed(key, k), k), request.state) for key, k in names
        ]

    def _must_be_online(self, draw: _Draw) -> None:
        if self.client.offline:
            where = (
                "there is no cache"
                if self.client.cache is None
                else f"{display_path(self.client.replies.path)} lacks it"
            )
            name = f"draw {draw.k} of {', '.join(map(str, draw.key)) or 'a greedy prompt'}"
            raise QvlibError(
                f"{self.client.base_url}, model {self.client.model!r}: {name} is needed, but "
                f"api_offline is set and {where}; unset api_offline, or give as api_cache that of "
                "a finished run with the same parameters"
            )

    def _ask(self, asks: Sequence[Sequence[_Draw]]) -> None:
        """Send a request for each list of draws, many at once, and keep what comes back.

        The first error ends it.
        """
        if not asks:
            return
        stopped, errors = threading.Event(), []

        def ask(draws: Sequence[_Draw]) -> None:
            if stopped.is_set():
                return
            try:
                self._ask_one(draws, stopped)
            except BaseException as error:
                errors.append(error)
                stopped.set()  # before this thread takes up the next
                raise

        # What is in flight is paid for: leaving the pool waits until it is kept.
        with ThreadPoolExecutor(
            min(len(asks), self.client.max_in_flight), thread_name_prefix="qvlib-api"
        ) as pool:
            try:
                wait([pool.submit(ask, draws) for draws in asks])
            except KeyboardInterrupt:
                stopped.set()
                raise
        if errors:
            raise errors[0]

    def _ask_one(self, draws: Sequence[_Draw], stopped: threading.Event) -> None:
        client = self.client
        try:
            replies = self._complete(draws, stopped)
        except TooLong:
            raise
        except Refused:
            if len(draws) == 1:
                raise
            # Maybe for its n: asked singly, it says so again if it was not that.
            client.takes_n = False
            return
        if len(replies) == 1 < len(draws):
            client.takes_n = False
        client.count(cut_off=sum(r is not None and r.finish_reason == "length" for r in replies))
        answered = [
            (draw, reply) for draw, reply in zip(draws, replies, strict=False) if reply is not None
        ]
        client.replies.keep({draw.id: reply for draw, reply in answered})
        self._look_at(answered)

    def _complete(self, draws: Sequence[_Draw], stopped: threading.Event) -> list[Any]:
        """What the server replies, asked with less of the conversation where its model reads less.

        Raises:
            TooLong: nothing shorter is left.
        """
        body, k = dict(draws[0].body), 0
        while True:
            try:
                return self.client.complete(body, len(draws), draws[0].seed, stopped)
            except TooLong:
                told = body["messages"]
                while body["messages"] == told:
                    k += 1
                    if self.shorter is None or k > HALVINGS:
                        raise
                    body["messages"] = self.shorter(draws[0].state, k)
            self.client.count(shortened=1)

    def _look_at(self, answered: Sequence[tuple[_Draw, Reply]]) -> None:
        """Tell, or end the run, where the server's first replies name no action."""
        for draw, reply in answered:
            if self.client.of_use:
                return
            named = (
                not self.unparsable(reply.text, draw.state)
                if self.unparsable
                else bool(reply.text.strip())
            )
            prompt = json.dumps(draw.body["messages"])
            self.client.look_at(reply, named, prompt, self.max_tokens)

    def _count_cached(self, replies: Mapping[str, Any]) -> None:
        self.client.count(
            cached=len(replies),
            cached_tokens=sum(r.prompt_tokens + r.completion_tokens for r in replies.values()),
        )

    def _proposals(self, state: State, row: Sequence[tuple[_Draw, Any]]) -> list[Proposal]:
        proposals, paid = [], set()
        for draw, reply in row:
            first = draw.id not in paid  # greedy replies are given again for nothing
            paid.add(draw.id)
            proposals.append(
                Proposal(
                    self.parse(reply.text, state),
                    None,
                    Cost(
                        tokens=reply.completion_tokens if first else 0,
                        prompt_tokens=reply.prompt_tokens if first else 0,
                        unparsable=int(
                            self.unparsable is not None and self.unparsable(reply.text, state)
                        ),
                    ),
                )
            )
        self.client.count(proposals=len(proposals), distinct=len({p.action for p in proposals}))
        return proposals


def _distinct(rows: Sequence[Sequence[_Draw]]) -> list[list[_Draw]]:
    """The rows without draws that an earlier one has, so that nothing is asked twice."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        fresh = {draw.id: draw for draw in row if draw.id not in seen}
        seen |= fresh.keys()
        kept.append(list(fresh.values()))
    return kept


def _digest(body: Mapping[str, Any], seed: int, k: int) -> str:
    """The name of a draw in the cache.

    By model, messages, sampling parameters, seed and k; no address and no key are in it.
    """
    text = json.dumps({"body": body, "seed": seed, "k": k}, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


__all__ = ["ApiAgent"]
