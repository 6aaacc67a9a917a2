"""Equality with recorded cases of the original, and what parity says when they differ."""

import gzip
import json

import pytest

from qvlib import parity
from qvlib.environments.webshop import catalogue
from qvlib.errors import QvlibError


@pytest.fixture(scope="session")
def rows(shared):
    return {row.file: row for row in parity.check_webshop(shared / "data" / "webshop")}


@pytest.mark.parametrize(("file", "total"), [
    ("goals", 6923), ("reward_golden", 5217), ("pages_golden", 501), ("search_golden", 422), ("doc_tokens", 1000),
    ("episodes_golden", 199)])
def test_webshop_is_the_original(rows, file, total):
    row = rows[f"{file}.jsonl.gz"]
    assert (row.matching, row.total, row.first_difference) == (total, total, "")


def test_prices_are_the_recorded_ones(shared):
    folder = shared / "data" / "webshop"
    with gzip.open(folder / "product_prices.json.gz") as file:
        recorded = json.load(file)
    assert {p.asin: p.price for p in catalogue.load(folder).products} == recorded


def test_a_difference_is_named(official, write):
    folder = write({**official, "search_golden.jsonl": json.dumps(
        {"query": "green tea", "tokens": ["green", "tea"], "asins": ["B000000003", "B000000001"]}) + "\n"})
    (row,) = parity.check_webshop(folder)
    assert (row.matching, row.total) == (0, 1) and "record 1: asins" in row.first_difference
    assert "0 of 1" in parity.format_rows([row])


def test_nothing_to_compare(official, write):
    with pytest.raises(QvlibError, match="parity needs recorded cases"):
        parity.check_webshop(write(official))


def test_cut_off_cases(official, write):
    folder = write({**official, "goals.jsonl.gz": gzip.compress(b'{"set": "synthetic"}\n' * 99)[:-9]})
    with pytest.raises(QvlibError, match="goals.jsonl.gz: cut off"):
        parity.check_webshop(folder)
