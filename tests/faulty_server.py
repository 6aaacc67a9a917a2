"""A chat server on loopback that replies by seed, and does wrong on demand.

A fault is the name of what goes wrong with one request: an HTTP state, or one of
hang, refuse (drops the connection), cut (ends in mid-body), broken (invalid JSON), empty, null,
other (JSON of another form), echo (HTTP 500 that quotes the key it got).
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qvlib.base.seeding import generator

WORDS = ("a", "b", "c", "nonsense")


@dataclass
class FaultyServer:
    """Use as a context manager.

    ``faults`` are for the next requests in turn; ``always`` gives the fault of a body, or None.

    n: "takes", "ignores" (one choice, whatever n is) or "refuses" (HTTP 400 for n above 1).
    reply: from the body and a generator of its own to the text of a choice, in the place of
        ``words``.
    answer: from the body to an answer of another kind, (state, headers, chunks of the content), or
        None. Chunks are sent as they come; with a state of 0 they are all, the head included.
    seen: the bodies in the order of coming. peak: the most requests that were under way at once.
    """

    faults: deque[str] = field(default_factory=deque)
    always: Callable[[dict[str, Any]], str | None] = lambda body: None
    n: str = "takes"
    words: tuple[str, ...] = WORDS
    reply: Callable[[dict[str, Any], Any], str] | None = None
    answer: Callable[[dict[str, Any]], tuple[int, dict[str, str], Iterable[bytes]] | None] = (
        lambda body: None
    )
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    null_choices: tuple[int, ...] = ()
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    peak: int = 0

    def __enter__(self) -> FaultyServer:
        self._lock, self._now = threading.Lock(), 0
        self._released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self._now += 1
            self.peak = max(self.peak, self._now)
            self.seen.append(body)
            self.keys.add(handler.headers.get("Authorization", ""))
            fault = self.always(body) or (self.faults.popleft() if self.faults else None)
        time.sleep(self.delay)
        with (
            self._lock
        ):  # before the answer leaves: the client may be back before this thread goes on
            self._now -= 1
        self._answer(handler, body, fault)

    def _answer(
        self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: str | None
    ) -> None:
        other = self.answer(body)
        if other is not None:
            _send(handler, *other)
            return
        status, content = 200, json.dumps(self._completion(body, fault)).encode()
        if fault is None and self.n == "refuses" and body.get("n", 1) > 1:
            fault = "400"
        if fault == "hang":
            self._released.wait(10)
        elif fault == "broken":
            content = content[: len(content) // 2]
        elif fault == "other":
            content = b'{"error": {"message": "the model is loading"}}'
        elif fault == "echo":
            status, content = 500, b"no luck with " + handler.headers["Authorization"].encode()
        elif fault and fault.isdigit():
            status, content = (
                int(fault),
                json.dumps({"error": {"message": f"state {fault}", "code": None}}).encode(),
            )
        if fault == "refuse":
            handler.close_connection = True
            handler.connection.close()
            return
        try:
            handler.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                **(self.headers if fault else {}),
            }.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        except (BrokenPipeError, ConnectionResetError):  # a client that had enough of waiting
            pass

    def _completion(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        n = body.get("n", 1) if self.n == "takes" else 1
        choices = []
        for i in range(0 if fault == "empty" else n):
            rng = generator(body.get("seed"), body["messages"][-1]["content"], i)
            text = (
                self.reply(body, rng)
                if self.reply
                else f"Action: {self.words[rng.integers(len(self.words))]}"
            )
            null = fault == "null" or (n > 1 and i in self.null_choices)
            choice = {
                "index": i,
                "finish_reason": "content_filter" if null else "stop",
                "message": {"role": "assistant", "content": None if null else text},
            }
            choices.append(choice)
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "fake-0613",
            "choices": choices,
            "usage": {
                "prompt_tokens": 11,
                "completion_tokens": 3 * len(choices),
                "total_tokens": 11 + 3 * len(choices),
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        }


def _send(
    handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], chunks: Iterable[bytes]
) -> None:
    handler.close_connection = True
    try:
        if status:
            handler.send_response(status)
            for name, value in {"Connection": "close", **headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(chunk)
            handler.wfile.flush()
    except (BrokenPipeError, ConnectionResetError):  # a client that had enough of it
        pass


def error(status: int, message: str, **more: Any) -> tuple[int, dict[str, str], list[bytes]]:
    """An answer of ``FaultyServer`` with an error's body as OpenAI writes it."""
    body = {"error": {"message": message, "type": "invalid_request_error", **more}}
    return status, {"Content-Type": "application/json"}, [json.dumps(body).encode()]


def replied(*messages: dict[str, Any], **more: Any) -> tuple[int, dict[str, str], list[bytes]]:
    """An answer of ``FaultyServer`` with a choice for each message."""
    choices = [{"index": i, "message": m, "finish_reason": "stop"} for i, m in enumerate(messages)]
    body = {"choices": [{**choice, **more} for choice in choices], "usage": {"prompt_tokens": 9}}
    return 200, {"Content-Type": "application/json"}, [json.dumps(body).encode()]
