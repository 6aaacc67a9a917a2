"""Nouns of a product title: from a table, or from spaCy's small English model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from qvlib.base.errors import QvlibError, brief
from qvlib.environments.webshop import files

TitleNouns = Callable[[str], tuple[str, ...]]
_MODEL = "en_core_web_sm"


def table_path(choice: str | Path, data_dir: str | Path) -> Path | None:
    """The table that ``choice`` means: ``auto`` (one beside the data), ``spacy`` (none), or a path.

    Raises:
        QvlibError: no such table.
    """
    if choice in ("auto", "spacy"):
        return files.find(data_dir, "title nouns") if choice == "auto" else None
    path = Path(choice)
    if not path.is_file():
        raise QvlibError(
            f"title_nouns {str(path)!r}: no such table; "
            "give auto, spacy or a title_nouns.json's path"
        )
    return path


def title_nouns(table: Path | None) -> TitleNouns:
    """Nouns from the table, or from spaCy without one.

    Raises:
        QvlibError: an unreadable table, or spaCy or its model not installed.
    """
    return from_table(table) if table else from_spacy()


def from_table(path: Path) -> TitleNouns:
    """Look titles up in a JSON object title -> tokens tagged NOUN or PROPN.

    Raises:
        QvlibError: an unreadable table, or later a title that it lacks.
    """
    listed = files.mapping(path)
    for title, tokens in listed.items():
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise QvlibError(
                f"{path}: the title {brief(title)} has {brief(tokens)}, expected a list of words; "
                "mend the table"
            )
    table = {title: tuple(token.lower() for token in tokens) for title, tokens in listed.items()}

    def nouns(title: str) -> tuple[str, ...]:
        try:
            return table[title]
        except KeyError:
            raise QvlibError(
                f"{path}: no nouns for the title {brief(title)}; complete the table, "
                "or set title_nouns to spacy"
            ) from None

    return nouns


def from_spacy() -> TitleNouns:
    """Tag titles with spaCy; the last 65,536 titles are remembered.

    Raises:
        QvlibError: spaCy or the model is not installed.
    """
    try:
        import spacy

        tag = spacy.load(_MODEL, disable=["parser", "ner", "lemmatizer"])
    except (ImportError, OSError):
        raise QvlibError(
            "title_nouns: neither a table title_nouns.json beside the data nor spaCy with "
            f"{_MODEL}: pip install spacy && python -m spacy download {_MODEL}, "
            "or give a table's path"
        ) from None

    @functools.lru_cache(1 << 16)
    def nouns(title: str) -> tuple[str, ...]:
        return tuple(token.text.lower() for token in tag(title) if token.pos_ in ("NOUN", "PROPN"))

    return nouns
