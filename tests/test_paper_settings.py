"""The paper's settings: a numbered list of differences, each with the parameter that chooses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from qvlib.pipeline.params import load, make

FOLDER = Path(__file__).parents[1] / "params" / "paper"
FILES = sorted(FOLDER.glob("*.yml"))
PAGE = (FOLDER / "README.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| .* \| ([^|]*) \|$", PAGE, re.MULTILINE)
CHOICE = re.compile(r"(?:(WebShop|HotPotQA) )?`(\w+): ([^`]+)`")


def choices(world: str) -> dict[str, object]:
    """What the numbered table says that the files of a world set."""
    found = [match for _, cell in ROWS for match in CHOICE.findall(cell)]
    return {name: yaml.safe_load(value) for of, name, value in found if of.lower() in ("", world)}


def test_the_differences_are_numbered_and_each_of_the_table_has_a_parameter():
    listed = [int(number) for number in re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE)]
    numbers = [int(number) for number, _ in ROWS]
    assert len(numbers) > 15 and len(listed) > 10
    assert numbers + listed == list(range(1, len(numbers) + len(listed) + 1))
    for number, cell in ROWS:
        worlds = {of for of, _, _ in CHOICE.findall(cell)}
        assert worlds in ({""}, {"WebShop", "HotPotQA"}), number


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_take_the_published_side_of_each(path):
    written, params = yaml.safe_load(path.read_text()), load(path)
    chosen = choices(params.world.environment)
    assert {name: params.flat()[name] for name in chosen} == chosen
    assert set(chosen) <= set(written)  # said in the file, whatever the defaults may become
    named = set(re.findall(r"`(\w+)(?:: [^`]+)?`", PAGE)) - {"a", "b"}
    assert named <= set(params.flat()) | set(make({}).flat())
    for name, value in re.findall(r"`(\w+): ([^`]+)`", PAGE[PAGE.index("What no parameter") :]):
        assert params.flat()[name] == yaml.safe_load(value)


def test_a_number_of_a_difference_is_no_decoration():
    """Most of the rules in the table are others than the defaults."""
    usual = make({}).flat()
    other = {name for name, value in choices("webshop").items() if usual[name] != value}
    assert len(other) >= 15
