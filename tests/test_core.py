"""The core is the method and nothing else: light, without a disk, short enough to read."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from qvlib import core
from qvlib.core.types import DRAWN, FREE, Cost, total

FILES = sorted(Path(core.__file__).parent.glob("*.py"))
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "pandas",
    "pydantic",
    "yaml",
    "scipy",
    "qvlib.models",
)
DISK = {"os", "io", "pathlib", "shutil", "tempfile", "json", "pickle", "sqlite3"}
LONGEST = 1700  # lines


def test_it_loads_no_model_library():
    code = f"import sys, qvlib.core; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_stands_on_base_alone_and_opens_no_file(file):
    tree = ast.parse(file.read_text())
    imported = _imported(tree)
    ours = {name for name in imported if name.startswith("qvlib")}
    assert all(name.startswith(("qvlib.core.", "qvlib.base.")) for name in ours)
    assert "qvlib.base.files" not in ours and "qvlib.base.paths" not in ours
    assert not {name.partition(".")[0] for name in imported} & DISK
    called = {
        n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and hasattr(n.func, "id")
    }
    assert "open" not in called and "print" not in called
    assert file.stem == "dpo" or not any(name.startswith("torch") for name in imported)


def test_its_length():
    lines = {file.name: len(file.read_text().splitlines()) for file in FILES}
    print(f"qvlib/core: {sum(lines.values())} lines", lines)
    assert sum(lines.values()) <= LONGEST


def test_its_functions_are_short():
    """At most 60 lines, docstring included."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{file.name}: {node.name}"


def test_its_public_names_are_there_and_say_what_they_are():
    assert len(set(core.__all__)) == len(core.__all__)
    for name in core.__all__:
        assert name == "Job" or getattr(core, name).__doc__, name


def test_costs_add_up():
    one, other = Cost(1, 2, 3, 4, 5, 6), Cost(tokens=10, env_steps=1)
    assert one + other == Cost(1, 12, 3, 4, 5, 7) == total([one, other])
    assert total([]) == FREE == Cost() and one + FREE == one
    assert one.drawn() == dict(zip(DRAWN, (1, 2, 3, 4, 5), strict=True))
