"""A chat server on loopback that answers by a local model.

In a dry run it is asked as a paid server would be.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qvlib.base.seeding import generator
from qvlib.models.local import LocalModel
from qvlib.models.templates import render


@contextmanager
def serving(lm: LocalModel) -> Iterator[str]:
    """The ``base_url`` of a server that answers ``chat/completions`` while the block lasts.

    One request at a time.
    """
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with turn:
                content = json.dumps(completion(lm, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def completion(lm: LocalModel, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request's JSON.

    Choice i is drawn from (its ``seed``, i), so that the same request has the same answer.
    """
    prompt = tuple(
        lm.tokenizer(render(lm.tokenizer, body["messages"]), add_special_tokens=False)["input_ids"]
    )
    temperature = body.get("temperature", 1.0)
    draws = [
        generator(body.get("seed", 0), "served", i).random if temperature else None
        for i in range(body.get("n", 1))
    ]
    (replies,) = lm.sample([prompt], [draws], temperature or 1.0, body.get("top_p", 1.0))
    choices = []
    for i, (ids, _) in enumerate(replies):
        text = lm.tokenizer.decode(ids, skip_special_tokens=True)
        for end in body.get("stop") or ():
            text = text.split(end)[0]
        choices.append(
            {
                "index": i,
                "finish_reason": "stop" if ids[-1] in lm.ends else "length",
                "message": {"role": "assistant", "content": text},
            }
        )
    used = {"prompt_tokens": len(prompt), "completion_tokens": sum(len(ids) for ids, _ in replies)}
    return {
        "id": "dry",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": choices,
        "usage": {**used, "total_tokens": sum(used.values())},
    }
