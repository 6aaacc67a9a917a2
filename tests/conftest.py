"""Fixtures that several tests share."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

# The longest: begun last, one of them would leave the other core without work.
FIRST = ["test_notebooks.py", "test_rendered.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first; tests of a Ray cluster are told apart."""
    items.sort(key=lambda item: item.path.name not in FIRST)
    for item in items:
        if "ray_cluster" in item.fixturenames:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, worker_id) -> Path:
    """The whole sequence of notebooks with the smoke parameters; the folder of runs and results.

    Made once for all processes of pytest: the first that asks makes it, others wait.
    """
    from qvlib import runner

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "smoke"
    with FileLock(f"{folder}.lock"):
        if not (made := folder / "made").exists():
            runner.run(
                Path(__file__).parents[1] / "params" / "smoke.yml",
                overrides={
                    "runs_dir": str(folder / "runs"),
                    "results_dir": str(folder / "results"),
                    "wandb_mode": "disabled",
                },
            )
            made.touch()
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The parameters of a tiny run, from the data to the episodes, that nothing disturbed."""
    from killing import run, tiny

    params = tiny(tmp_path_factory.mktemp("undisturbed"))
    run(params)
    return params


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Callable[[], Any]]:
    """Gives a Ray cluster of two CPUs, started when it is first asked for, and tried once.

    Where Ray itself, without qvlib, cannot have two actors answer, its tests are skipped.
    """
    from clusters import started, works

    with ExitStack() as stack:
        tried = functools.cache(lambda: _attempt(stack, started(2)))
        silent = functools.cache(lambda: works(tried()[0], 240))

        def cluster() -> Any:
            made, error = tried()
            if error is not None:
                pytest.fail(f"no Ray cluster could be started here: {error}")
            if why := silent():
                pytest.skip(f"Ray does not work on this machine: {why}")
            return made

        yield cluster


@pytest.fixture(scope="module", autouse=True)
def _no_workers_are_left() -> Iterator[None]:
    """Ray's workers that wait for more would hold the CPUs that the next file's are to have."""
    yield
    if "qvlib.pipeline.work" in sys.modules:
        sys.modules["qvlib.pipeline.work"].end_workers()


def _attempt(stack: ExitStack, context: Any) -> tuple[Any, Exception | None]:
    try:
        return stack.enter_context(context), None
    except Exception as error:  # Ray raises no narrower one
        return None, error


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the research fixtures; tests that need them are skipped elsewhere."""
    folder = Path(os.environ.get("QVLIB_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data" / "webshop").is_dir():
        pytest.skip(
            f"needs {folder}/data/webshop: the 1,000-product WebShop data with recorded cases of "
            "the original; set QVLIB_SHARED to the folder that holds data/webshop"
        )
    return folder


@pytest.fixture(scope="session")
def hotpotqa_data(shared) -> Path:
    """Folder of real HotPotQA questions with recorded cases; elsewhere its tests are skipped."""
    folder = shared / "data" / "hotpotqa"
    if not (folder / "env_golden.jsonl.gz").is_file():
        pytest.skip(
            f"needs {folder}: HotPotQA questions, their articles and recorded cases of the "
            "original's rules"
        )
    return folder


@pytest.fixture(scope="session")
def encyclopaedia(tmp_path_factory) -> Path:
    """Folder of a small embedded encyclopaedia: 400 articles, 1,600 questions."""
    from qvlib.environments.hotpotqa.generator import write_encyclopaedia

    folder = tmp_path_factory.mktemp("encyclopaedia")
    write_encyclopaedia(folder, 400, 0)
    return folder


@pytest.fixture
def hotpot() -> dict:
    """Three questions in the official format, by file name; tests change and write them."""
    film = [
        "The Bell is a film directed by Ann Moor.",
        "It was shot in Arl.",
        "It runs long.",
        "Its score is loud.",
        "Arl liked it.",
        "It won in 1999.",
    ]
    ann = ["Ann Moor was born in Arl.", "She lives there."]
    bob = ["Bob Lane was born in Ode."]
    refers = ["Moor may refer to: Ann Moor, or a heath."]
    return {
        "hotpot_tiny_v1.json": [
            {
                "_id": "q1",
                "question": "Where was the director of The Bell born?",
                "answer": "Arl",
                "type": "bridge",
                "level": "hard",
                "supporting_facts": [["The Bell", 0], ["Ann Moor", 0]],
                "context": [
                    ["The Bell", film],
                    ["Moor", refers],
                    ["Ann Moor", ann],
                    ["the bell", ["A poem."]],
                ],
            },
            {
                "_id": "q2",
                "question": "When did The Bell win?",
                "answer": "1999",
                "type": "bridge",
                "level": "easy",
                "supporting_facts": [["The Bell", 5]],
                "context": [["The Bell", film], ["Ann Moor", ann]],
            },
            {
                "_id": "q3",
                "question": "Was Bob Lane born in Ode?",
                "answer": "yes",
                "type": "comparison",
                "level": "easy",
                "supporting_facts": [["Bob Lane", 0]],
                "context": [["Bob Lane", bob], ["Ode\u0301  Town", ["Ode is a town."]]],
            },
        ]
    }


def _product(asin: str, name: str, **changes) -> dict:
    return {
        "asin": asin,
        "name": name,
        "full_description": f"About {name}.",
        "small_description": ["Soft. ", ""],
        "pricing": "$12.50",
        "customization_options": "",
        "category": "fashion",
        "query": " Shirts ",
        "product_category": "Clothing › Men › Shirts",
        "images": ["x.jpg"],
        **changes,
    }


@pytest.fixture
def official() -> dict:
    """Six products in the official format, by file name; tests change and write them."""
    sizes = [{"value": " Small "}, {"value": "Large/Tall"}]
    products = [
        _product(
            "B000000001",
            "Red cotton shirt",
            customization_options={
                "Size": sizes,
                "Color": [{"value": "Red"}, {"value": "Light Blue"}],
                "Style": None,
            },
        ),
        _product("B000000002", "Blue wool shirt", pricing="$10.00 - $20.00"),
        _product(
            "B000000003",
            "Green tea",
            small_description="Loose leaf",
            query="tea",
            category="grocery",
            product_category="Grocery › Beverages › Tea",
        ),
        _product("B000000001", "A repeat, skipped"),
        _product("nan", "No asin, skipped"),
        _product(
            "B000000004",
            "Oak table & chair",
            pricing="",
            query="tables",
            category="garden",
            product_category="Home › Furniture › Tables",
        ),
        _product("B000000005", "Table lamp", query="lamps", category="garden", full_description=""),
        _product("B000000006", "Dear sofa", pricing="$1,985.00", query="sofas"),
    ]
    attributes = {
        "B000000001": {
            "attributes": ["machine washable", "cotton"],
            "instruction": "Find me machine washable shirts",
            "instruction_attributes": ["machine washable"],
        },
        "B000000002": {
            "attributes": ["wool"],
            "instruction": "Find me wool shirts",
            "instruction_attributes": ["wool"],
        },
        "B000000003": {"attributes": ["loose leaf"]},
        "B000000004": {
            "attributes": [],
            "instruction": "Find me tables",
            "instruction_attributes": [],
        },
        "B000000006": {
            "attributes": ["soft"],
            "instruction": "Find me sofas",
            "instruction_attributes": ["soft"],
        },
    }
    human = {
        "B000000003": [
            {
                "asin": "B000000003",
                "instruction": "i want loose leaf tea.",
                "instruction_attributes": ["loose leaf"],
                "instruction_options": ["100 g"],
            },
            {
                "asin": "B000000003",
                "instruction": "any",
                "instruction_attributes": [],
                "instruction_options": [],
            },
        ]
    }
    nouns = {p["name"]: p["name"].split() for p in products}
    return {
        "items_shuffle_1000.json": products,
        "items_ins_v2_1000.json": attributes,
        "items_human_ins.json": human,
        "title_nouns.json": nouns,
    }


@pytest.fixture
def write(tmp_path):
    """Write files by name, as JSON unless they are bytes or text; gives the folder."""

    def files(contents: dict) -> Path:
        for name, content in contents.items():
            if isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)
            else:
                (tmp_path / name).write_text(
                    content if isinstance(content, str) else json.dumps(content)
                )
        return tmp_path

    return files
