"""Files that are not what they say, and texts that cannot be written again: one line for each."""

import gzip
import json
from dataclasses import replace

import pytest

from qvlib.base.errors import QvlibError
from qvlib.core.types import Task
from qvlib.environments import contract, datafiles
from qvlib.environments.hotpotqa import files as hotpotqa_files
from qvlib.environments.textworld import games
from qvlib.environments.webshop import catalogue, nouns
from qvlib.environments.webshop import files as webshop_files
from qvlib.pipeline.data import check_texts

DEEP = 100_000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
LONG = "x" * (2 << 20)
NESTED = "[" * 400 + "]" * 400


def told(act, *arguments):
    """What a QvlibError says: one line of less than 300 characters."""
    with pytest.raises(QvlibError) as caught:
        act(*arguments)
    said = str(caught.value)
    assert "\n" not in said and len(said) <= 300, said[:400]
    return said


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", gzip.compress(b"[]"), "not UTF-8 text but gzip: call it a.json.gz"),
        ("a.json", b"PAR1\xff\xfe", "not UTF-8 text but Parquet: write it as JSON Lines"),
        ("a.json", '[{"a": 1}]'.encode("utf-16"), "not UTF-8 text; fetch it again"),
        ("a.json", b"<!DOCTYPE html>", "not a list of things; give it"),
        ("a.json", POINTER, "a pointer of Git LFS, not the file; fetch it by `git lfs pull`"),
        ("a.jsonl.gz", POINTER, "a pointer of Git LFS, not the file; fetch it by `git lfs pull`"),
        ("a.json.gz", gzip.compress(gzip.compress(b"[]")), "gzipped twice; gunzip it once"),
        ("a.json", b"", "not a list of things; give it"),
        ("a.json", b"{", "line 1 is not JSON"),
        ("a.json", b'[{"a": 1}, {"a": ', "record 1: not JSON or cut off"),
        ("a.json", b"[[1]]", "record 0 is not an object; give it"),
        ("a.json.gz", b'[{"a": 1}]', "cut off or not a gzip file"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "line 2 is not an object"),
        ("a.json", b'[{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}]", "nested too deep"),
        ("a.json", b'[{"a": ' + b'{"b":[' * DEEP + b"]}" * DEEP + b"}]", "nested too deep"),
        ("a.jsonl", b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}\n", "line 1 is nested too deep"),
        ("a.jsonl", b'{"a": ' + b"9" * 6000 + b"}\n", "line 1 has a number of thousands of digits"),
        ("a.json", b'[{"a": "x\\ud800"}]', "half a character, \\ud800, in"),
        ("a.json", b'[{"a": "\\uDE00 x"}]', "half a character, \\uDE00, in"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\\ud83d\\u0041"}\n', "half a character, \\ud83d, in"),
    ],
    ids=range(20),
)
def test_what_a_file_is_is_said(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    said = told(lambda: list(datafiles.either(path, "things", "give it")))
    assert says in said and name in said


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "a.json").mkdir()
    assert "a.json: cannot be read (Is a directory)" in told(
        lambda: list(datafiles.either(tmp_path / "a.json", "things", "give it"))
    )


def test_what_is_only_unusual_is_read(tmp_path):
    path = tmp_path / "a.json"
    pair = "\\ud83d\\ude00"
    odd = f'"pair": "{pair}", "no pair": "\\\\ud800", "open": "{"[" * 9000}\\" {{["'
    text = f'[{{{odd}, "deep": {NESTED}}}]'
    for content in (text, f"\n {text}", "\ufeff" + text):
        path.write_text(content, encoding="utf-8")
        assert [row for _, row in datafiles.either(path, "things", "")] == json.loads(text)
    path.write_text(f"\ufeff\n{text[1:-1]}\n\n", encoding="utf-8")
    assert list(datafiles.either(path, "things", "")) == [(2, json.loads(text)[0])]


def test_no_pair_is_cut_where_a_chunk_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(datafiles, "_CHUNK", 5)
    rows = [{"a": "\U0001f600" * i + "\\" * i} for i in range(12)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert [row for _, row in datafiles.records(tmp_path / "a.json", "things", "")] == rows
    (tmp_path / "a.json").write_text(json.dumps(rows)[:-1] + ', {"a": "\\ud83d and more of it"}]')
    assert "half a character" in told(
        lambda: list(datafiles.records(tmp_path / "a.json", "things", ""))
    )


@pytest.mark.parametrize("key", ["_id", "question", "answer", "supporting_facts", "split"])
def test_a_field_of_a_question_is_not_echoed_whole(hotpot, write, key):
    records = hotpot["hotpot_tiny_v1.json"]
    for value in ([LONG, "y"], json.loads(NESTED), {LONG: 1}):
        changed = [records[0], {**records[1], key: value}]
        told(hotpotqa_files.load, write({"hotpot_tiny_v1.json": changed}))
    changed = [{**record, key: LONG} for record in records[:2] if key in ("_id", "split")]
    told(hotpotqa_files.load, write({"hotpot_tiny_v1.json": changed}))  # twice; no such split


def test_a_title_of_an_article_is_not_echoed_whole(hotpot, write):
    articles = "".join(json.dumps({"title": LONG, "text": "x"}) + "\n" for _ in range(2))
    assert "comes twice" in told(hotpotqa_files.load, write({**hotpot, "corpus.jsonl": articles}))


@pytest.mark.parametrize("key", ["name", "pricing", "customization_options", "asin"])
def test_a_field_of_a_product_is_not_echoed_whole(official, write, key):
    for value in ([LONG, "y"], json.loads(NESTED), {LONG: 1}):
        official["items_shuffle_1000.json"][2][key] = value
        told(catalogue.load, write(official))


def test_a_table_of_nouns_is_not_echoed_whole(official, write):
    folder = write({**official, "title_nouns.json": {LONG: {"deep": [LONG]}}})
    told(nouns.from_table, folder / "title_nouns.json")
    table = nouns.from_table(write(official) / "title_nouns.json")
    assert "no nouns for the title" in told(table, LONG)


@pytest.mark.parametrize("what", ["attributes", "human instructions"])
def test_an_object_that_is_none(official, write, what):
    name = {"attributes": "items_ins_v2_1000.json", "human instructions": "items_human_ins.json"}
    for content in ("[" * DEEP, '{"a": "\\udc00"}', '{"a": ' + "9" * 6000 + "}", "null"):
        folder = write({**official, name[what]: content})
        assert name[what] in told(webshop_files.mapping, webshop_files.find(folder, what))


@pytest.mark.parametrize("key", ["_id", "question", "answer"])
def test_half_a_pair_in_a_question_is_refused(hotpot, write, key):
    hotpot["hotpot_tiny_v1.json"][1][key] = "q\ud800"
    assert "half a character" in told(hotpotqa_files.load, write(hotpot))
    lines = {
        "questions.jsonl": json.dumps({"id": "1", "question": "a", "answer": "\ud800"}),
        "corpus.jsonl": "",
    }
    for path in list(write({}).iterdir()):
        path.unlink()
    assert "half a character" in told(hotpotqa_files.load, write(lines))


@pytest.mark.parametrize("key", ["asin", "name", "query", "full_description"])
def test_half_a_pair_in_a_product_is_refused(official, write, key):
    official["items_shuffle_1000.json"][2][key] = "B\ud800"
    assert "half a character" in told(catalogue.load, write(official))


def test_half_a_pair_in_an_instruction_of_the_shop_is_refused(official, write):
    official["items_ins_v2_1000.json"]["B000000001"]["instruction"] = "Find\ud800"
    assert "half a character" in told(catalogue.load, write(official))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"objective": "Find\\udcff it."}', "half a character"),
        ('{"objective": ["Find it."]}', "its .json is not one of TextWorld's"),
        ("[1]", "its .json is not one of TextWorld's"),
        ("{}", "its .json is not one of TextWorld's"),
        ("[" * DEEP, "nested too deep"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\x1f\x8b\x08", "not UTF-8 text but gzip"),
    ],
    ids=range(7),
)
def test_a_game_whose_description_is_none(tmp_path, content, says):
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert says in told(games.make_task, tmp_path, "a.z8")


@pytest.mark.parametrize("name", ["id", "instruction", "group"])
@pytest.mark.parametrize("value", ["a\ud800", "\udfff", None, 7], ids=ascii)
def test_a_world_of_ones_own_may_hold_no_half_pairs(name, value):
    task = replace(Task("t", "Find it.", "g"), **{name: value})
    said = told(check_texts, {"train": [Task("s", "x", "g"), task]})
    assert f"its {name}, {value!r}" in said and said.isascii()
    assert not contract.is_writable(value) and contract.is_writable("é \U0001f600")
    check_texts({"train": [Task("s", "x \U0001f600", "g")], "test": []})
