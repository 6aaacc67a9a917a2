"""Live Wikipedia in the place of a corpus, each answer kept on disk.

``dataclasses.replace(world, corpus=Wikipedia(path))`` asks it; what was asked once is never asked again, so that
a finished run can be repeated without a network as long as its file is kept. Whole articles as plain text, of
today: neither the pages nor the rewards are those of the fixed corpus.
"""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.files import append_line, mend_tail, read_lines
from qvlib.environments.hotpotqa.corpus import SIMILAR

API = "https://en.wikipedia.org/w/api.php"
_PAGE = {
    "action": "query",
    "prop": "extracts",
    "explaintext": "1",
    "redirects": "1",
    "format": "json",
    "formatversion": "2",
}
_SIMILAR = {
    "action": "query",
    "list": "search",
    "srlimit": str(SIMILAR),
    "format": "json",
    "formatversion": "2",
}


def fetch(parameters: Mapping[str, str]) -> Any:
    """The answer of Wikipedia's API.

    Raises:
        QvlibError: no answer, or none to a query.
    """
    request = urllib.request.Request(
        f"{API}?{urllib.parse.urlencode(parameters)}", headers={"User-Agent": "qvlib"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        if (
            "query" not in answer
        ):  # errors, such as too many requests, come as HTTP 200; kept, they would stand for ever
            raise ValueError(f"{answer!r:.200}")
    except (OSError, ValueError, TypeError) as error:
        raise QvlibError(
            f"{API}: no usable answer ({error}); check the network, or use a corpus on disk"
        ) from None
    return answer


class Wikipedia:
    """Articles of Wikipedia, after ``Articles`` of ``corpus``; ``path`` is the JSON Lines file of what was asked."""

    def __init__(self, path: str | Path, ask: Callable[[Mapping[str, str]], Any] = fetch) -> None:
        self.path, self.ask = Path(path), ask
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mend_tail(self.path)
        self.found: dict[str, str | None] = {}
        self.texts: dict[str, str] = {}
        self.alike: dict[str, tuple[str, ...]] = {}
        for record in read_lines(self.path):
            self._keep(record)

    def find(self, entity: str) -> str | None:
        """The title of the article an entity names, redirects followed; None if there is none."""
        key = " ".join(entity.split())
        if key not in self.found:
            # "|" would ask for several pages, and no title holds it.
            answer = {} if not key or "|" in key else self.ask({**_PAGE, "titles": key})
            page = next(iter(answer.get("query", {}).get("pages", ())), {})
            known = bool(page.get("extract"))
            self._add(
                {
                    "entity": key,
                    "title": page["title"] if known else None,
                    "text": page["extract"] if known else "",
                }
            )
        return self.found[key]

    def text(self, title: str) -> str:
        """The text of an article that ``find`` gave."""
        return self.texts[title]

    def similar(self, entity: str) -> tuple[str, ...]:
        """At most five titles that Wikipedia's search finds for an entity."""
        key = " ".join(entity.split())
        if key not in self.alike:
            answer = self.ask({**_SIMILAR, "srsearch": key}) if key else {}
            self._add(
                {
                    "entity": key,
                    "similar": [hit["title"] for hit in answer.get("query", {}).get("search", ())],
                }
            )
        return self.alike[key]

    def _add(self, record: dict[str, Any]) -> None:
        append_line(self.path, record)
        self._keep(record)

    def _keep(self, record: Mapping[str, Any]) -> None:
        if "similar" in record:
            self.alike[record["entity"]] = tuple(record["similar"])
        else:
            self.found[record["entity"]] = record["title"]
            if record["title"] is not None:
                self.texts.setdefault(record["title"], record["text"])
