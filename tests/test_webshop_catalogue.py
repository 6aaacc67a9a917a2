"""Loading official files: the original's rules, and a clear error for each fault."""

import gzip
import json
import math
import random
import struct

import pytest

from qvlib.base.errors import QvlibError
from qvlib.environments import datafiles
from qvlib.environments.webshop import catalogue, goals
from qvlib.environments.webshop.nouns import table_path, title_nouns


def test_loading_rules(official, write):
    shop = catalogue.load(write(official))
    assert [p.asin[-1] for p in shop.products] == list("123456")
    first, second, third, fourth, lamp, _ = shop.products
    assert first.options == (("size", ("small", "large | tall")), ("color", ("red", "light blue")))
    assert (first.price_tag, second.price_tag, fourth.price_tag) == (
        "$12.5",
        "$10.0 to $20.0",
        "$100.0",
    )
    assert third.bullets == ("Loose leaf",)
    assert lamp.attributes == ("DUMMY_ATTR",) and first.query == "shirts"
    assert second.price == random.Random(12345).uniform(10, 20)
    assert catalogue.load(shop.data_dir, seed=1).by_asin["B000000002"].price != second.price


def test_plain_and_gzip_are_the_same(official, write, tmp_path):
    plain = catalogue.load(write(official))
    for path in list(tmp_path.iterdir()):
        (tmp_path / (path.name + ".gz")).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    zipped = catalogue.load(tmp_path)
    assert zipped.products == plain.products
    assert set(zipped.data_hashes()) == {
        f"{name}.gz" for name in official if name != "title_nouns.json"
    }


def test_records_across_small_windows(official, write, tmp_path, monkeypatch):
    whole = catalogue.load(write(official)).products
    monkeypatch.setattr(datafiles, "_CHUNK", 7)
    assert catalogue.load(tmp_path).products == whole


def test_records_are_what_json_reads(tmp_path):
    rng = random.Random(0)
    floats = [struct.unpack("d", rng.randbytes(8))[0] for _ in range(2000)]
    numbers = [x for x in floats if math.isfinite(x)] + [0, -0.0, 2**53 + 1, 5e-324, 1e22, -(2**62)]
    texts = ["\u20ac \U0001f600 \x00", 'a "quote"\\ \n', "[{", ""]
    whole = [{"numbers": numbers, "texts": texts, "": {"item": [None, True, []]}}, {}]
    for indent, ascii_alone in ((None, True), (2, False)):
        text = json.dumps(whole, indent=indent, ensure_ascii=ascii_alone)
        (tmp_path / "list.json").write_text(" \n" + text, encoding="utf-8")
        read = [record for _, record in datafiles.records(tmp_path / "list.json", "things", "")]
        assert repr(read) == repr(json.loads(text))  # 0 is not 0.0, nor is -0.0


def test_goals(official, write):
    shop = catalogue.load(write(official))
    made = goals.build(shop, "synthetic")
    assert len(made) == 4 + 1 + 1 + 1
    assert [g.index for g in made] == list(range(7)) and sorted(g.number for g in made) == list(
        range(7)
    )
    shirts = sorted((g for g in made if g.asin == "B000000001"), key=lambda g: g.number)
    assert [(g.nth, *(value for _, value in g.options)) for g in shirts] == [
        (0, "red", "small"),
        (1, "red", "large | tall"),
        (2, "light blue", "small"),
        (3, "light blue", "large | tall"),
    ]
    shirt = shirts[0]
    assert shirt.options == (("color", "red"), ("size", "small"))
    assert shirt.instruction.startswith(
        "Find me machine washable shirts with color: red, and size: small, and price lower than "
    )
    assert shirt.weight == 0.25 and shirt.nth == 0
    sofa = next(g for g in made if g.asin == "B000000006")
    assert sofa.price_upper == goals.NO_LIMIT and sofa.instruction == "Find me sofas"
    (human,) = goals.build(shop, "human")
    assert human.options == ("100 g",) and human.instruction.startswith(
        "i want loose leaf tea, and price lower"
    )


def test_an_option_without_values_makes_no_goals(official, write):
    before = goals.build(catalogue.load(write(official)), "synthetic")
    official["items_shuffle_1000.json"][0]["customization_options"]["Size"] = []
    made = goals.build(catalogue.load(write(official)), "synthetic")
    assert 0 < len(made) == len(before) - 4 and {g.asin for g in made} == {
        g.asin for g in before
    } - {"B000000001"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("items_shuffle_1000.json", None, "no file of products"),
        ("items_ins_v2_1000.json", None, "no file of attributes"),
        ("items_shuffle_1000.json", '{"a": 1}', "not a list of products"),
        ("items_shuffle_1000.json", "[1, 2]", "record 0 is not an object"),
        ("items_shuffle_1000.json", "", "not a list of products"),
        ("items_shuffle_1000.json", "[]", "no products in it"),
        ("items_shuffle_1000.json", '[{"asin": "B1"', "record 0: not JSON or cut off"),
        ("items_shuffle_1000.json", "[] and more", "record 0: not JSON or cut off (parse error: t"),
        ("items_shuffle_1000.json", '[{"asin": "B1"}]', "record 0 (B1): no field"),
        ("items_shuffle_1000.json", '[{"asin": 3}]', "field 'asin' is 3"),
        ("items_shuffle_1000.json", b"[\xff\xfe]", "not UTF-8"),
        ("items_ins_v2_1000.json", "[]", "expected one JSON object"),
        ("items_ins_v2_1000.json", "{", "not JSON"),
        ("items_ins_v2_1000.json", '{"B000000001": 3}', "B000000001"),
        ("items_ins_v2_1000.json", '{"B000000001": {"attributes": "cotton"}}', "B000000001"),
        ("items_ins_v2_1000.json", '{"B000000001": {"instruction": 3}}', "B000000001"),
        ("items_human_ins.json", '{"B000000003": [{}]}', "B000000003"),
        (
            "items_human_ins.json",
            '{"B000000003": [{"instruction": null, "instruction_attributes": ["a"], '
            '"instruction_options": []}]}',
            "B000000003",
        ),
        (
            "items_human_ins.json",
            '{"B000000003": [{"instruction": "tea", "instruction_attributes": ["a"], '
            '"instruction_options": "b"}]}',
            "B000000003",
        ),
        ("products_1000.json", "[]", "several files of products"),
    ],
)
def test_bad_files(official, write, name, content, says):
    official.pop(name, None)
    folder = write(official if content is None else {**official, name: content})
    with pytest.raises(QvlibError) as error:
        catalogue.load(folder)
    assert says in str(error.value) and (name in str(error.value) or content is None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("small_description", 4),
        ("small_description", [4]),
        ("pricing", "twelve"),
        ("pricing", "$1.2.3"),
        ("pricing", "$" + "9" * 400),
        ("customization_options", {"size": [{}]}),
        ("customization_options", ["size"]),
    ],
)
def test_bad_fields_name_record_and_field(official, write, field, value):
    official["items_shuffle_1000.json"][2][field] = value
    with pytest.raises(QvlibError, match=rf"record 2 \(B000000003\).*{field}"):
        catalogue.load(write(official))


def test_missing_folder(tmp_path):
    with pytest.raises(QvlibError, match=r"no such folder.*data_dir"):
        catalogue.load(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"no gzip"])
def test_damaged_gzip(official, write, damage):
    products = gzip.compress(json.dumps(official.pop("items_shuffle_1000.json")).encode())
    with pytest.raises(QvlibError, match=r"items_shuffle.json.gz: cut off or not a gzip file"):
        catalogue.load(write({**official, "items_shuffle.json.gz": damage(products)}))


def test_no_human_goals(official, write):
    del official["items_human_ins.json"]
    with pytest.raises(QvlibError, match="no human goals"):
        goals.build(catalogue.load(write(official)), "human")


def test_title_nouns(official, write):
    nouns = title_nouns(table_path("auto", write(official)))
    assert nouns("Green tea") == ("green", "tea")
    with pytest.raises(QvlibError, match="no nouns for the title 'Pink'"):
        nouns("Pink")
    with pytest.raises(QvlibError, match="no such table"):
        table_path("nowhere.json", ".")
    for tokens in ("tea", None, ["green", 3]):
        with pytest.raises(
            QvlibError,
            match=r"title_nouns.json: the title 'Green tea' has .*expected a list of words",
        ):
            title_nouns(
                table_path("auto", write({**official, "title_nouns.json": {"Green tea": tokens}}))
            )


def test_title_nouns_without_table_or_spacy(official, write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    del official["title_nouns.json"]
    with pytest.raises(QvlibError, match="pip install spacy"):
        title_nouns(table_path("auto", write(official)))
