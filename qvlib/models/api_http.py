"""HTTP to a chat server: bounded in time and size, to no other host, past no proxy to loopback."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

import openai

from qvlib.base.addresses import is_loopback, wrong_proxy
from qvlib.base.errors import QvlibError
from qvlib.models.api_answers import LOG, Fault

REDIRECTS = 3
T = TypeVar("T")


class Bounded(openai.DefaultHttpxClient):
    """Reads an answer whole, within ``deadline`` seconds and ``longest`` bytes, unpacked.

    Compression is not asked for, since a few bytes may stand for gigabytes.

    Raises:
        Fault: an answer beyond the bounds.
        QvlibError: a redirect to another host, or a proxy that cannot be used.
    """

    def __init__(self, address: str, deadline: float, longest: int) -> None:
        by_proxy = not is_loopback(address)
        if by_proxy and (wrong := wrong_proxy()):
            raise QvlibError(wrong)
        self._deadline, self._longest = deadline, longest
        super().__init__(trust_env=by_proxy, headers={"Accept-Encoding": "identity"})

    def send(self, request: Any, **options: Any) -> Any:
        end = time.monotonic() + self._deadline
        options |= {"stream": True, "follow_redirects": False}
        response = super().send(request, **options)
        for _ in range(REDIRECTS):
            if response.next_request is None:
                break
            response.close()
            _stay(request.url, response.next_request.url)
            response = super().send(response.next_request, **options)
        try:
            content = self._unpacked(response, end)
        finally:
            response.close()
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")
        ]
        return type(response)(
            response.status_code, headers=headers, content=content, request=response.request
        )

    def _unpacked(self, response: Any, end: float) -> bytes:
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Fault("an answer in a compression that was not asked for", LOG)
        packed = encoding not in ("", "identity")
        try:
            return self._read(response.iter_raw(), zlib.decompressobj(47) if packed else None, end)
        except zlib.error:
            raise Fault("an answer whose compression is broken", LOG) from None

    def _read(self, chunks: Iterable[bytes], unpack: Any, end: float) -> bytes:
        content = bytearray()
        for chunk in chunks:
            content += unpack.decompress(chunk, self._left(content)) if unpack else chunk
            if len(content) > self._longest:
                raise Fault(
                    f"an answer of more than {self._longest:,} bytes",
                    "raise api_longest_answer if answers are as long as that",
                )
            if time.monotonic() > end:
                raise too_late(self._deadline)
        return bytes(content)

    def _left(self, content: bytearray) -> int:
        return self._longest + 1 - len(content)


def _stay(here: Any, there: Any) -> None:
    """Refuse a redirect to another host: the prompts are not meant for it."""
    same_port = (here.scheme, here.port) == (there.scheme, there.port)
    if here.host != there.host or not (same_port or there.scheme == "https"):
        raise QvlibError(
            f"the server redirects to {there.host[:80]!r}, which is not asked; give its address as "
            "api_base_url if it may read the prompts"
        )


def too_late(deadline: float) -> Fault:
    """The fault of an answer that is not whole in time."""
    return Fault(
        f"no whole answer within {deadline:g} s", "raise api_deadline or lower api_in_flight"
    )


def within(deadline: float, call: Callable[[], T]) -> T:
    """What a call returns.

    In a thread of its own, since nothing else ends a look-up of a name, or an answer's head that
    comes byte by byte; where it is given up, it goes on unheard.

    Raises:
        Fault: it takes longer than ``deadline`` seconds.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="qvlib-api-try").start()
    try:
        return future.result(deadline)
    except TimeoutError:
        raise too_late(deadline) from None


__all__ = ["Bounded", "too_late", "within"]
