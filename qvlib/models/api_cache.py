"""Replies of a server, kept on disk: no draw is paid for twice, and a rerun needs no server.

One JSON object a line, only ever appended; several threads and processes may share the file. The
first reply written for a draw is the one that counts for all of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from qvlib.base.errors import QvlibError
from qvlib.base.files import append_line, mend_tail, open_own
from qvlib.base.paths import display_path, resolve

MOST_TOKENS = 2**31 - 1  # of one answer; more is no count


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server replied to one draw, and what it reported about it.

    prompt_tokens: 0 for all but the first of the draws that shared a request, so that sums are what
        was paid.
    model: as the server names it.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""


class ReplyCache:
    """Replies by the key of their draw, in the JSONL file ``path``; None: in memory only."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else resolve(path)
        self._replies: dict[str, Reply] = {}
        self._read = self._lines = 0  # bytes and lines of the file that are in ``_replies``
        self._lock = threading.Lock()

    def get(self, keys: list[str]) -> dict[str, Reply]:
        """The replies that are there, those of other processes included.

        Raises:
            QvlibError: the file cannot be read or is damaged.
        """
        with self._lock:
            self._refresh()
            return {key: self._replies[key] for key in keys if key in self._replies}

    def keep(self, replies: Mapping[str, Reply]) -> None:
        """Add replies, which are on the disk when the call returns; what is there already stays.

        Raises:
            QvlibError: the file cannot be read or written, or is damaged.
        """
        with self._lock, self._alone():
            if self._refresh() and self.path is not None:
                # A writer was killed in the middle of a line.
                mend_tail(self.path)
                self._refresh()
            for key, reply in replies.items():
                if key not in self._replies:
                    if self.path is not None:
                        append_line(self.path, {"key": key, **asdict(reply)})
                    self._replies[key] = reply

    def _refresh(self) -> bool:
        """Read what was appended since.

        True if the file ends in the middle of a line, which is left out.
        """
        if self.path is None:
            return False
        try:
            with open(self.path, "rb") as file:
                if file.seek(0, 2) < self._read:  # deleted and begun anew
                    self._replies, self._read, self._lines = {}, 0, 0
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise QvlibError(
                f"{display_path(self.path)} cannot be read: {error.strerror}"
            ) from None
        *whole, tail = content.split(b"\n")
        for line in whole:
            self._read += len(line) + 1
            self._lines += 1
            if not self._add(line):
                raise QvlibError(
                    f"{display_path(self.path)}: line {self._lines} is not a reply, so the file "
                    "was edited or damaged; delete that line (it is asked for again) or the file"
                )
        if tail:
            self._add(tail)  # complete but for its line end, or nothing
        return bool(tail)

    def _add(self, line: bytes) -> bool:
        try:
            record = json.loads(line)
            record.pop("log_prob", None)  # older files have it
            key, reply = record.pop("key"), Reply(**record)
            counts = (reply.prompt_tokens, reply.completion_tokens)
            if not isinstance(reply.text, str) or not all(0 <= n <= MOST_TOKENS for n in counts):
                return False
            self._replies.setdefault(key, reply)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False  # not JSON, or JSON of something else
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the file's lock, so that no two processes append or mend at once."""
        if self.path is None:
            yield
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(open_own(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
        except OSError as error:
            raise QvlibError(
                f"{display_path(self.path)} cannot be written: {error.strerror}; "
                "put the cache into a writable folder"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise QvlibError(
                    f"{display_path(self.path)} cannot be locked: {error.strerror}; "
                    "put the cache on a local disk"
                ) from None
            yield


__all__ = ["Reply", "ReplyCache"]
