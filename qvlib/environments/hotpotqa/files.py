"""Finding and reading questions and articles: the official file, or JSON Lines beside a corpus.

| file | one record |
|---|---|
| ``hotpot_*.json`` | ``_id, question, answer, type, level, supporting_facts, context`` |
| ``questions.jsonl`` | the same with ``id`` for ``_id``, no context, optionally ``split`` |
| ``corpus.jsonl`` | ``title`` and ``text``; beside the first it comes before the contexts |

Each plain or ``.gz``. The first is a JSON list, as hotpotqa.github.io has it, or JSON Lines, then
also called ``.jsonl``; and as the hub has it, with ``id``, ``context: {title, sentences}`` and
``supporting_facts: {title, sent_id}``. The context holds the articles; ``questions.jsonl`` needs
``corpus.jsonl``.
Where both kinds of questions lie in a folder, ``questions.jsonl`` is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError, brief
from qvlib.environments.datafiles import either, lines, sha256
from qvlib.environments.hotpotqa.corpus import Corpus, build_corpus
from qvlib.environments.hotpotqa.questions import Question, failure, parse, rows

OFFICIAL = "hotpot_dev_distractor_v1.json of hotpotqa.github.io"
QUESTIONS, CORPUS, CONTEXTS = "questions.jsonl", "corpus.jsonl", "hotpot_*.json"


@dataclass(frozen=True)
class Loaded:
    """questions in the file's order; corpus; paths of the files read."""

    questions: tuple[Question, ...] = field(repr=False)
    corpus: Corpus = field(repr=False)
    paths: tuple[Path, ...]

    def data_hashes(self) -> dict[str, str]:
        """File name -> sha256 of every file read."""
        return {path.name: sha256(path) for path in self.paths}


def load(data_dir: str | Path) -> Loaded:
    """The questions and articles of a folder.

    Raises:
        QvlibError: no such folder, nothing to read in it, several files for one thing, an
            unreadable or broken file (with its record and key), an id that comes twice, or a
            supporting article that is missing.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        raise QvlibError(
            f"data_dir {str(folder)!r}: no such folder; put {OFFICIAL} into a folder and "
            "give it as data_dir"
        )
    asked, corpus_file, official = (
        _one(folder, pattern) for pattern in (QUESTIONS, CORPUS, CONTEXTS)
    )
    if not asked and not official:
        raise QvlibError(
            f"data_dir {str(folder)!r}: no questions ({CONTEXTS} or {QUESTIONS}, plain or .gz); "
            f"fetch {OFFICIAL} into this folder, or give another data_dir"
        )
    if asked and not corpus_file:
        raise QvlibError(
            f"data_dir {str(folder)!r}: {asked.name} needs the articles in {CORPUS} (or .gz) "
            f"beside it; add it, or use {OFFICIAL}, which holds its articles"
        )
    articles: dict[str, str] = dict(_articles(corpus_file)) if corpus_file else {}
    if asked:
        questions = tuple(parse(record, asked, number) for number, record in lines(asked))
    else:
        questions = tuple(_official(official, articles))
    source = asked or official
    _check(questions, articles, source)
    return Loaded(
        questions, build_corpus(articles.items()), tuple(p for p in (source, corpus_file) if p)
    )


def _one(folder: Path, pattern: str) -> Path | None:
    ends = ("", "l", ".gz", "l.gz") if pattern == CONTEXTS else ("", ".gz")
    paths = sorted({p for end in ends for p in folder.glob(pattern + end)})
    if len(paths) > 1:
        raise QvlibError(
            f"data_dir {str(folder)!r}: several files for {pattern}: "
            f"{', '.join(p.name for p in paths)}; keep the one to use there"
        )
    return paths[0] if paths else None


def _articles(path: Path) -> Iterator[tuple[str, str]]:
    seen = set()
    for number, record in lines(path):
        fail = failure(path, number)
        for key in ("title", "text"):
            if not isinstance(record.get(key), str):
                fail(f"key {key!r} is missing or not a text")
        if record["title"] in seen:
            fail(f"the title {brief(record['title'])} comes twice")
        seen.add(record["title"])
        yield record["title"], record["text"]


def _official(path: Path, articles: dict[str, str]) -> Iterator[Question]:
    """The questions of an official file; adds the articles of their contexts to ``articles``."""
    for number, record in either(path, "questions", f"give {OFFICIAL}"):
        question = parse(record, path, number)
        context = rows(record.get("context"), ("title", "sentences"))
        if context is None or not all(_is_paragraph(p) for p in context):
            failure(path, number)("key 'context' is not a list of [title, [sentences]]")
        for title, sentences in context:
            if title not in articles:
                articles[title] = " ".join(s.strip() for s in sentences if s.strip())
        yield question


def _is_paragraph(paragraph: Any) -> bool:
    return (
        isinstance(paragraph, list | tuple)
        and len(paragraph) == 2
        and isinstance(paragraph[0], str)
        and isinstance(paragraph[1], list)
        and all(isinstance(s, str) for s in paragraph[1])
    )


def _check(questions: tuple[Question, ...], articles: dict[str, str], path: Path) -> None:
    if not questions:
        raise QvlibError(f"{path}: no questions in it; fetch {OFFICIAL} again")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise QvlibError(
                f"{path}: question id {brief(question.id)} comes twice; remove one of the two"
            )
        seen.add(question.id)
    lacking = [q for q in questions if not all(title in articles for title in q.titles)]
    if lacking:
        title = next(title for title in lacking[0].titles if title not in articles)
        raise QvlibError(
            f"{path}: {len(lacking):,} of {len(questions):,} questions are supported by an article "
            f"that is not there, first {brief(lacking[0].id)} by {brief(title)}; give {OFFICIAL} "
            f"(fullwiki files lack such articles), or add them to {CORPUS}"
        )
