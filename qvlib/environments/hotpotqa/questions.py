"""Questions as the official files have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from qvlib.base.errors import QvlibError, brief

SPLITS = ("train", "dev", "test")
ANSWERS = " (the official test files hold none: give train or dev)"


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


def parse(record: Mapping[str, Any], path: Path, number: int) -> Question:
    """A question from a record of any format.

    Raises:
        QvlibError: a key is missing or holds something else.
    """
    fail = failure(path, number)
    id_key = "_id" if "_id" in record else "id"
    texts = {}
    for key in (id_key, "question", "answer"):
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            fail(
                f"key {key!r} is {brief(value)}, not a text"
                if key in record
                else f"key {key!r} is missing{ANSWERS if key == 'answer' else ''}"
            )
        texts[key] = value
    facts = rows(record.get("supporting_facts") or [], ("title", "sent_id"))
    if facts is None or not all(_is_fact(fact) for fact in facts):
        fail("key 'supporting_facts' is not a list of [title, sentence number]")
    split = record.get("split") or ""
    if split and split not in SPLITS:
        fail(f"key 'split' is {brief(split)}, not one of {', '.join(SPLITS)}")
    return Question(
        texts[id_key],
        texts["question"].strip(),
        texts["answer"],
        str(record.get("type") or ""),
        str(record.get("level") or ""),
        tuple((title, at) for title, at in facts),
        split,
    )


def rows(value: Any, columns: tuple[str, str]) -> list[Any] | None:
    """A list of pairs, told as such or as two columns of one length; None for anything else."""
    if isinstance(value, dict):
        first, second = (value.get(column) for column in columns)
        if not isinstance(first, list) or not isinstance(second, list) or len(first) != len(second):
            return None
        return list(zip(first, second, strict=True))
    return value if isinstance(value, list) else None


def failure(path: Path, number: int) -> Callable[[str], NoReturn]:
    """What to call with a reason why a record cannot be used."""

    def fail(why: str) -> NoReturn:
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
