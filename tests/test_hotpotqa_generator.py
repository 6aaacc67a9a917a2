"""The embedded encyclopaedia: the same bytes for a seed, solvable, unseen articles in test."""

import re
from collections import Counter

import pytest

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import episode
from qvlib.core.lockstep import lockstep
from qvlib.environments import hotpotqa
from qvlib.environments.hotpotqa import vocabulary
from qvlib.environments.hotpotqa.corpus import pieces
from qvlib.environments.hotpotqa.generator import FILES, LONGEST, write_encyclopaedia
from qvlib.environments.hotpotqa.metric import normalise
from qvlib.environments.hotpotqa.reader import Reader


@pytest.fixture(scope="module")
def world(encyclopaedia):
    return hotpotqa.build(encyclopaedia)


@pytest.fixture(scope="module")
def questions(world):
    return [task.goal for split in ("train", "dev", "test") for task in world.tasks(split)]


def test_a_seed_is_its_bytes(tmp_path, encyclopaedia):
    def read(name, articles, seed):
        write_encyclopaedia(tmp_path / name, articles, seed)
        return [(tmp_path / name / file).read_bytes() for file in FILES]

    assert read("again", 400, 0) == [(encyclopaedia / file).read_bytes() for file in FILES]
    assert read("other", 40, 1) != read("same size", 40, 0)


def test_sizes(world, questions):
    assert len(world.corpus) == 400 and len(questions) == 1600 and world.skipped == 0
    assert len({q.text for q in questions}) == 1600
    hops = Counter((q.kind, len(q.titles)) for q in questions)
    assert hops["bridge", 2] == 640 and hops["bridge", 3] == 400 and hops["comparison", 4] > 150
    closed = Counter(q.answer for q in questions if q.answer in ("yes", "no"))
    assert closed["yes"] == closed["no"] > 60


def test_every_question_is_solved_by_its_gold_path(world, questions):
    tasks = [task for split in ("train", "dev", "test") for task in world.tasks(split)]
    records = list(
        lockstep((episode(world, task, 0) for task in tasks), Reader(world, gold=True), 64)
    )
    assert {r["reward"] for r in records} == {1.0} and max(
        r["env_steps"] for r in records
    ) <= LONGEST == world.max_steps
    looked = sum(any(a.startswith("lookup") for a in r["actions"]) for r in records)
    assert 0.1 < looked / len(records) < 0.4  # facts that a search does not show


def test_articles_are_short_and_state_what_is_asked(world, questions):
    for title, text in world.corpus.texts.items():
        assert 3 <= len(pieces(text)) <= 6 and title.split()[0] in text
    for question in questions:
        cited = [pieces(world.corpus.text(title))[at] for title, at in question.facts]
        if question.kind == "bridge":
            assert question.answer in cited[-1]
            assert f" {normalise(question.answer)} " not in f" {normalise(question.text)} "


def test_an_unseen_question_needs_unseen_articles(world):
    needed = {
        split: {t for task in world.tasks(split) for t in task.goal.titles}
        for split in ("train", "dev", "test")
    }
    assert (
        not needed["test"] & (needed["train"] | needed["dev"])
        and not needed["dev"] & needed["train"]
    )
    assert all(len({task.group for task in world.tasks(split)}) > 1 for split in needed)


def test_names_are_of_few_parts_and_mislead(world, questions):
    texts = (*world.corpus.texts.values(), *(q.text for q in questions))
    assert len({w for text in texts for w in re.findall(r"\w+", text.lower())}) < 900
    titles = list(world.corpus.texts)
    sequels = [t for t in titles if t.endswith(" Returns")]
    assert len(sequels) == 20 and all(t.removesuffix(" Returns") in titles for t in sequels)
    surnames = Counter(t.split()[-1] for t in titles if t.split()[0] in vocabulary.FIRST)
    assert sum(count > 1 for count in surnames.values()) >= 20


@pytest.mark.parametrize("articles", [19, 100_000])
def test_too_few_or_too_many_articles(tmp_path, articles):
    with pytest.raises(QvlibError, match=f"articles {articles}: .* give a number from 20 to 16000"):
        write_encyclopaedia(tmp_path, articles, 0)
