"""What messages tell to do: each parameter, command, extra and file that they name exists.

The strings of the whole package are walked, docstrings and meanings of parameters apart.
"""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from qvlib import environments, estimators
from qvlib.agents.arms import ARMS
from qvlib.cli import main
from qvlib.pipeline.params import FIXED, STAGES

ROOT = Path(__file__).parents[1]
# A verb of a remedy, and what it is done to where that is one word.
DONE_TO = re.compile(r"\b(?:raise|lower|set|unset|leave|increase|reduce|shorten) `?([a-z]\w*)")
# A name of several words, which no text has by chance; not a part of a path, a call or a file.
NAME = re.compile(r"(?<![\w./{<\[-])[a-z]+(?:_[a-z0-9]+)+(?![\w./(])")
ORDINARY = frozenset(
    "a an all and each it its one out some that the their them this to twice up".split()
)
# What messages name that is no parameter: fields of data files, of tokenizers and of environments.
OTHERS = {
    "eos_token",
    "chat_template",  # of a tokenizer
    "auto_map",
    "resize_token_embeddings",  # of a model
    "finish_reason",  # of a server's answer
    "small_description",
    "customization_options",
    "instruction_attributes",
    "instruction_options",  # of WebShop's files
    "supporting_facts",  # of HotPotQA's
}
MESSAGES = ("QvlibError", "Refused", "TooLong", "Fault", "failure", "_fail", "_tell", "fail")


@functools.cache
def parameters() -> set[str]:
    """Every parameter of every world, estimator and arm."""
    return {name for name, _ in fields()}


@functools.cache
def choices() -> set[str]:
    """What a parameter may be, by name."""
    literal = {str(choice) for _, kind in fields() for choice in get_args(kind)}
    return literal | set(estimators.ESTIMATORS) | set(STAGES) | {arm.name for arm in ARMS}


def fields() -> list[tuple[str, Any]]:
    worlds = (environments.world_of(name).settings for name in environments.WORLDS)
    fitted = (estimators.estimator_of(name).settings for name in estimators.ESTIMATORS)
    arms = (arm.settings for arm in ARMS if arm.settings is not None)
    return [
        (name, field.annotation)
        for cls in (*FIXED.values(), *worlds, *fitted, *arms)
        for name, field in cls.model_fields.items()
    ]


def texts(source: str) -> Iterator[tuple[int, bool, str]]:
    """Line, whether it is in a message, and text of each string; what is filled in is ``{}``."""
    tree = ast.parse(source)
    apart, told = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            apart.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            apart |= set(map(id, node.values))
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            inside = {id(inner) for inner in ast.walk(node)}
            apart |= inside if name == "setting" else set()
            told |= inside if name in MESSAGES else set()
        elif isinstance(node, (ast.Yield, ast.Return)):  # of checks that give the remedy
            inside = [inner for inner in ast.walk(node) if isinstance(inner, ast.Constant)]
            if any(isinstance(inner.value, str) and "; " in inner.value for inner in inside):
                told |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in apart:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, id(node) in told, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, id(node) in told, "".join(map(str, parts))


def unknown(source: str) -> list[tuple[int, str]]:
    """Line and name of whatever the messages of a module name and nothing is called."""
    found, known = [], parameters()
    for line, told, text in texts(source):
        if text.count(" ") < 2:
            continue
        named = {word for word in DONE_TO.findall(text) if word not in ORDINARY and ";" in text}
        wrong = named | (set(NAME.findall(text)) - choices() if told else set())
        found += [(line, name) for name in sorted(wrong - known - OTHERS)]
    return found


SOURCES = sorted((ROOT / "qvlib").rglob("*.py"))


def test_every_parameter_that_a_message_names_exists():
    wrong = {
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SOURCES
        for line, name in unknown(path.read_text())
    }
    assert not wrong


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("'no answer; raise longest_wait'", "longest_wait"),
        ("'too slow; raise timeout or lower it'", "timeout"),
        ("f'{where} lacks it; unset offline, or go on'", "offline"),
        ("'no server there; correct base_url, then go on'", "base_url"),
        ("f'{x} is cut; raise max_token' ' a little'", "max_token"),
    ],
)
def test_a_name_that_is_none_would_be_seen(message, name):
    assert unknown(f"raise QvlibError({message})") == [(1, name)]


def test_other_things_that_messages_name_exist(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = set(re.findall(r"^ +(\w+) {2,}", capsys.readouterr().out, re.M))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    seen = 0
    for path in SOURCES:
        for line, _, text in texts(path.read_text()):
            where = f"{path.relative_to(ROOT)}:{line}: {text!r}"
            for kind, known in (
                (r"`qvlib (\w+)", commands),
                (r"qvlib\[([\w,]+)\]|'?\.\[([\w,]+)\]'?(?=`)", set(extras)),
                (r"`make (\w+)", targets),
            ):
                for found in re.findall(kind, text):
                    names = "".join(found).split(",")
                    assert set(names) <= known, where
                    seen += 1
            for file in re.findall(r"\bparams/[\w/-]+\.yml\b", text):
                assert (ROOT / file).is_file(), where
                seen += 1
    assert seen > 5
