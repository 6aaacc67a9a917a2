"""Loading questions and articles: both formats, a clear error for each fault, the splits."""

import gzip
import json
import time

import pytest

from qvlib.base.errors import QvlibError
from qvlib.environments.hotpotqa import build, files
from qvlib.environments.hotpotqa.corpus import build_corpus
from qvlib.environments.hotpotqa.questions import Question
from qvlib.environments.hotpotqa.splits import SPLITS, group, split_tasks

NAME = "hotpot_tiny_v1.json"


def as_lines(official):
    """The same data as JSON Lines."""
    records, articles = [], {}
    for record in official[NAME]:
        articles.update({title: " ".join(sentences) for title, sentences in record["context"]})
        records.append(
            {
                "id": record["_id"],
                **{k: v for k, v in record.items() if k not in ("_id", "context")},
            }
        )
    corpus = [{"title": title, "text": text} for title, text in articles.items()]
    return {
        name: "".join(json.dumps(r) + "\n" for r in rows)
        for name, rows in (("questions.jsonl", records), ("corpus.jsonl", corpus))
    }


def test_both_formats_plain_and_gzip_are_the_same(hotpot, tmp_path):
    loaded = []
    for number, contents in enumerate((hotpot, as_lines(hotpot))):
        for zipped in (False, True):
            folder = tmp_path / f"{number}{zipped}"
            folder.mkdir()
            for name, content in contents.items():
                data = (content if isinstance(content, str) else json.dumps(content)).encode()
                (folder / f"{name}{'.gz' if zipped else ''}").write_bytes(
                    gzip.compress(data) if zipped else data
                )
            loaded.append(files.load(folder))
            assert set(loaded[-1].data_hashes()) == {
                f"{n}{'.gz' if zipped else ''}" for n in contents
            }
    assert all(
        one.questions == loaded[0].questions and one.corpus.texts == loaded[0].corpus.texts
        for one in loaded
    )
    question = loaded[0].questions[0]
    assert (question.id, question.answer, question.titles) == (
        "q1",
        "Arl",
        ("The Bell", "Ann Moor"),
    )


def test_sentences_join_with_one_blank(hotpot, write):
    hotpot[NAME][2]["context"][0][1] = [
        "Bob Lane was born in Ode.",
        " He left.",
        " ",
    ]  # as the official file has them
    assert files.load(write(hotpot)).corpus.text("Bob Lane") == "Bob Lane was born in Ode. He left."


def test_a_corpus_beside_the_official_file_comes_first(hotpot, write):
    loaded = files.load(
        write({**hotpot, "corpus.jsonl": '{"title": "The Bell", "text": "Another text."}\n'})
    )
    assert loaded.corpus.text("The Bell") == "Another text." and "Ann Moor" in loaded.corpus.texts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r.pop("answer"),
            "record 1: key 'answer' is missing (the official test files hold none: give train",
        ),
        (lambda r: r.update(question=7), "record 1: key 'question' is 7, not a text"),
        (lambda r: r.update(_id=" "), "record 1: key '_id' is ' '"),
        (lambda r: r.update(supporting_facts=[["Bob Lane"]]), "record 1: key 'supporting_facts'"),
        (
            lambda r: r.update(supporting_facts=[["Nobody", 0]]),
            "by an article that is not there, first 'q2' by 'Nobody'; give hotpot_dev_distr",
        ),
        (lambda r: r.update(context={"Bob Lane": []}), "record 1: key 'context'"),
        (
            lambda r: r.update(split="valid"),
            "record 1: key 'split' is 'valid', not one of train, dev, test",
        ),
        (lambda r: r.update(_id="q1"), "question id 'q1' comes twice"),
    ],
)
def test_broken_records_are_named(hotpot, write, change, message):
    change(hotpot[NAME][1])
    with pytest.raises(QvlibError) as caught:
        files.load(write(hotpot))
    assert (
        message in str(caught.value) and NAME in str(caught.value) and "\n" not in str(caught.value)
    )


def test_missing_files_are_named_with_what_to_fetch_and_where(hotpot, write, tmp_path):
    with pytest.raises(
        QvlibError,
        match=r"no such folder; put hotpot_dev_distractor_v1.json of hotpotqa.github.io into a ",
    ):
        files.load(tmp_path / "nowhere")
    with pytest.raises(
        QvlibError,
        match=r"fetch hotpot_dev_distractor_v1.json of hotpotqa.github.io into this folder",
    ):
        files.load(tmp_path)
    with pytest.raises(QvlibError, match=r"questions.jsonl needs the articles in corpus.jsonl"):
        files.load(write({"questions.jsonl": as_lines(hotpot)["questions.jsonl"]}))


def test_several_or_empty_or_cut_off_files(hotpot, write):
    folder = write({**hotpot, "hotpot_other.json": []})
    with pytest.raises(
        QvlibError,
        match=r"several files for hotpot_.*hotpot_other.json, hotpot_tiny_v1.json; keep the one",
    ):
        files.load(folder)
    (folder / NAME).unlink()
    with pytest.raises(QvlibError, match="no questions in it"):
        files.load(folder)
    (folder / "hotpot_other.json").write_text(json.dumps(hotpot[NAME])[:-40])
    with pytest.raises(QvlibError, match="record 2: not JSON or cut off"):
        files.load(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"title": "X"}', "record 2: key 'text' is missing"),
        ("[]", "line 2 is not an object"),
        ('{"title": "The Bell", "text": ""}', "record 2: the title 'The Bell' comes twice"),
        ("{", "line 2 is not JSON"),
    ],
)
def test_broken_articles_are_named(hotpot, write, line, message):
    folder = write({**hotpot, "corpus.jsonl": '{"title": "The Bell", "text": "x"}\n' + line + "\n"})
    with pytest.raises(QvlibError, match=message) as caught:
        files.load(folder)
    assert "corpus.jsonl" in str(caught.value)


def as_the_hub_has_it(record):
    """The record in the columns of the hub's data set."""
    titles, sentences = zip(*record["context"], strict=True)
    facts = tuple(zip(*record["supporting_facts"], strict=True))
    return {
        "id": record["_id"],
        **{key: record[key] for key in ("question", "answer", "type", "level")},
        "supporting_facts": {"title": list(facts[0]), "sent_id": list(facts[1])},
        "context": {"title": list(titles), "sentences": list(sentences)},
    }


@pytest.mark.parametrize("name", ["hotpot_dev.json", "hotpot_dev.jsonl", "hotpot_dev.jsonl.gz"])
def test_the_layout_of_the_hub(hotpot, tmp_path, name):
    (tmp_path / "official").mkdir()
    (tmp_path / "official" / NAME).write_text(json.dumps(hotpot[NAME]))
    rows = [as_the_hub_has_it(record) for record in hotpot[NAME]]
    text = json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows)) + "\n"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if ".gz" in name else text.encode())
    ours, theirs = files.load(tmp_path), files.load(tmp_path / "official")
    assert ours.questions == theirs.questions and ours.corpus.texts == theirs.corpus.texts
    lines = tmp_path / "lines"
    lines.mkdir()
    (lines / "hotpot_dev.json").write_text(
        "\n\n".join(map(json.dumps, rows))
    )  # JSON Lines in .json
    assert files.load(lines).questions == theirs.questions


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("context", {"title": ["A", "B"], "sentences": [["One."]]}),
        ("context", {"title": ["A"]}),
        ("context", {"title": "A", "sentences": "B"}),
        ("supporting_facts", {"title": ["A"], "sent_id": ["0"]}),
    ],
)
def test_columns_that_do_not_fit_each_other(hotpot, write, column, value):
    row = {**as_the_hub_has_it(hotpot[NAME][0]), column: value}
    with pytest.raises(QvlibError, match=f"record 0: key '{column}'"):
        files.load(write({"hotpot_dev.json": [row]}))


def test_empty_lines_are_skipped(hotpot, write):
    contents = {name: f"\n{text}\n \n" for name, text in as_lines(hotpot).items()}
    assert len(files.load(write(contents)).questions) == 3


def test_retrieved_paragraphs_without_the_gold_ones_are_counted(hotpot, write):
    for record in hotpot[NAME][:2]:  # as in hotpot_dev_fullwiki_v1.json
        record["context"] = [p for p in record["context"] if p[0] != "The Bell"]
    with pytest.raises(QvlibError) as caught:
        files.load(write(hotpot))
    assert "2 of 3 questions" in str(caught.value) and "fullwiki" in str(caught.value)


def test_titles_alike_but_for_accents_and_quotes():
    titles = ("Beyoncé", "Rock ’n’ Roll High School", "Gabłin", "Smørrebrød", "“Heroes”")
    titles += ("Naïve Art", "The Bell")
    corpus = build_corpus((title, "x") for title in titles)
    for asked, title in (
        ("Beyonce", titles[0]),
        ("Beyonce\u0301", titles[0]),
        ("rock 'n' roll", titles[1]),
        ("Gablin", titles[2]),
        ("Smorrebrod", titles[3]),
        ('"Heroes"', titles[4]),
        ("naive", titles[5]),
        ("Naïve", titles[5]),
    ):
        assert corpus.similar(asked) == (title,), asked
    assert corpus.find("Beyonce") is None  # an article is opened by its title alone


def question(id, *titles, split=""):
    return Question(id, f"{id}?", "x", facts=tuple((t, 0) for t in titles), split=split)


def test_groups_hang_together_by_articles():
    asked = [
        question("1", "b", "c"),
        question("2", "c", "d"),
        question("3", "d", "a"),
        question("4", "e"),
        question("5"),
    ]
    assert group(asked) == {"1": "a", "2": "a", "3": "a", "4": "e", "5": "5"}


def test_groups_are_dealt_out_whole():
    asked = [question(f"{i}{k}", f"t{i}", f"u{i}{k}") for i in range(100) for k in range(3)]
    splits = split_tasks(asked, 0.1, 0.3, 0)
    assert {name: len(tasks) for name, tasks in splits.items()} == {
        "train": 180,
        "dev": 30,
        "test": 90,
    }
    titles = {
        name: {t for task in tasks for t in task.goal.titles} for name, tasks in splits.items()
    }
    assert (
        not titles["train"] & titles["test"]
        and not titles["train"] & titles["dev"]
        and not titles["dev"] & titles["test"]
    )
    assert splits == split_tasks(asked, 0.1, 0.3, 0) != split_tasks(asked, 0.1, 0.3, 1)
    few = split_tasks(asked[:30], 0.1, 0.3, 0)
    assert {name: len(tasks) for name, tasks in few.items()} == {"train": 18, "dev": 3, "test": 9}


def test_given_splits_stand_and_train_gives_way():
    asked = [
        question("1", "a", split="train"),
        question("2", "a", "b", split="test"),
        question("3", "b", "c", split="dev"),
        question("4", "c", split="train"),
        question("5", "d", split="train"),
        question("6", split="dev"),
    ]
    splits = {
        name: {t.goal.id for t in tasks} for name, tasks in split_tasks(asked, 0.1, 0.3, 0).items()
    }
    assert splits == {"train": {"4", "5"}, "dev": {"6"}, "test": {"2"}}


def test_one_great_group_is_cut():
    asked = [
        question(f"{i:03}", f"t{i}", f"t{i + 1}") for i in range(300)
    ]  # a chain: all hang together
    splits = split_tasks(asked, 0.1, 0.3, 0)
    assert (
        all(len(splits[name]) > 9 for name in SPLITS) and 150 < sum(map(len, splits.values())) < 300
    )
    groups = [{t.group for t in tasks} for tasks in splits.values()]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_the_real_data(hotpotqa_data):
    start = time.process_time()
    world = build(hotpotqa_data)
    assert time.process_time() - start < 5 and len(world.corpus) == 23065
    assert {name: len(world.tasks(name)) for name in SPLITS} == {
        "train": 1412,
        "dev": 252,
        "test": 368,
    } and world.skipped == 36
    assert set(world.data_hashes()) == {"questions.jsonl.gz", "corpus.jsonl.gz"}


def test_the_real_official_file(hotpotqa_data, tmp_path):
    name = "hotpot_distractor_sample.json.gz"
    (tmp_path / name).symlink_to(hotpotqa_data / name)
    world = build(tmp_path)
    assert sum(len(world.tasks(split)) for split in SPLITS) == 300 and world.skipped == 0
