"""Questions as the official files have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Question:
    """One question; ``goal`` of its task.

    kind: ``bridge`` or ``comparison``, empty where not recorded; level: ``easy``, ``medium`` or
        ``hard``.
    facts: (title, number of the sentence) of each supporting sentence; empty where not recorded.
    split: where the file names one, else empty.
    """

    id: str
    text: str
    answer: str
    kind: str = ""
    level: str = ""
    facts: tuple[tuple[str, int], ...] = ()
    split: str = ""

    @property
    def titles(self) -> tuple[str, ...]:
        """The supporting articles, each once, in the file's order."""
        return tuple(dict.fromkeys(title for title, _ in self.facts))


def parse(record: Any, path: Path, number: int, id_key: str) -> Question:
    """A question from a record of either format.

    Raises:
        QvlibError: a key is missing or holds something else.
    """
    fail = failure(path, number)
    if not isinstance(record, dict):
        fail("it is not an object")
    texts = {}
    for key in (id_key, "question", "answer"):
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            fail(
                f"key {key!r} is {value!r:.60}, not a text"
                if key in record
                else f"key {key!r} is missing"
            )
        texts[key] = value
    facts = record.get("supporting_facts") or ()
    if not isinstance(facts, list | tuple) or not all(_is_fact(fact) for fact in facts):
        fail("key 'supporting_facts' is not a list of [title, sentence number]")
    split = record.get("split") or ""
    if split and split not in SPLITS:
        fail(f"key 'split' is {split!r:.60}, not one of {', '.join(SPLITS)}")
    return Question(
        texts[id_key],
        texts["question"].strip(),
        texts["answer"],
        str(record.get("type") or ""),
        str(record.get("level") or ""),
        tuple((title, at) for title, at in facts),
        split,
    )


def failure(path: Path, number: int) -> Callable[[str], None]:
    """What to call with a reason why a record cannot be used."""

    def fail(why: str) -> None:
        raise QvlibError(
            f"{path}: record {number}: {why}; mend or remove it, or fetch the file again"
        )

    return fail


def _is_fact(fact: Any) -> bool:
    return (
        isinstance(fact, list | tuple)
        and len(fact) == 2
        and isinstance(fact[0], str)
        and type(fact[1]) is int
    )
