"""What all executors share: who does which part again, and what workers say.

A message is a pickled pair (kind, value). Pickling is the worker's, so that what cannot be pickled
is an error of the work, with its traceback, and what arrives is the driver's own copy.
"""

from __future__ import annotations

import pickle
import traceback
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from qvlib.base.errors import QvlibError

T = TypeVar("T")
READY, ITEM, DONE, ERROR = "ready", "item", "done", "error"
ATTEMPTS = 3  # a part whose workers died this often is given up


class Book(Generic[T]):
    """Which parts wait for a worker, and which of their items the caller has.

    ``waiting``: numbers of parts, next first; ``open``: how many are not finished.
    """

    def __init__(self, parts: int, key: Callable[[T], Hashable] | None) -> None:
        self.waiting = deque(range(parts))
        self.open = parts
        self._key = key
        self._deaths: Counter[int] = Counter()
        self._given: dict[int, set[Hashable]] = {}
        self._before: dict[int, frozenset[Hashable]] = {}
        self._met: Counter[int] = Counter()

    def take(self) -> int:
        """The next part, to be done from its start."""
        part = self.waiting.popleft()
        self._before[part] = frozenset(self._given.setdefault(part, set()))
        self._met[part] = 0
        return part

    def fresh(self, part: int, item: T) -> bool:
        """Whether the caller has this item of a part not yet, from a worker that died."""
        name = self._key(item) if self._key else self._met[part]
        self._met[part] += 1
        self._given[part].add(name)
        return name not in self._before[part]

    def finished(self, part: int) -> None:
        """A part is done."""
        self.open -= 1
        del self._given[part], self._before[part], self._met[part]

    def died(self, part: int) -> None:
        """The worker of a part died: the part is next, but not more often than ``ATTEMPTS``.

        Raises:
            QvlibError: it was done that often.
        """
        self._deaths[part] += 1
        if self._deaths[part] == ATTEMPTS:
            raise QvlibError(
                f"a worker process died {ATTEMPTS} times at the same work, most likely for want of "
                "memory; lower processes or batch_size and run again, everything finished is kept"
            )
        self.waiting.appendleft(part)


def message(kind: str, value: Any = None) -> bytes:
    """A message of a worker."""
    return pickle.dumps((kind, value), pickle.HIGHEST_PROTOCOL)


def messages(parcel: bytes) -> Iterator[bytes]:
    """Do a part, the pickled (work, arguments), where a worker is; yields its messages.

    The last tells the worker's peak memory, ``ru_maxrss``.
    """
    try:
        work, arguments = pickle.loads(parcel)
        for item in work(*arguments):
            yield message(ITEM, item)
        import resource  # not on every system, as those are told who can do without

        yield message(DONE, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    except QvlibError as error:
        yield message(ERROR, error)
    except (Exception, SystemExit):  # whatever it was, the driver raises it
        yield message(ERROR, RuntimeError("in a worker process:\n" + traceback.format_exc()))
