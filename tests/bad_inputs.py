"""Bad inputs of every kind: what a user can get wrong, and what the one line of error must name.

``python -m tests.bad_inputs MADE HERE NAME`` does one, as a command of qvlib would: the exit status
is 2 and stderr has one line where it is refused. ``campaign.py`` does all, each in a process of its
own.

MADE is a folder that ``prepare`` filled: data of two worlds, a small model, a finished tiny run.
HERE is an empty folder for what a case writes.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError

Run = Callable[[Path, Path], int]


@dataclass(frozen=True)
class Bad:
    """A bad input: ``run(made, here)`` gives the exit status of the command that meets it.

    names: what the line of error must hold, or what is printed where it is ``taken`` rightly.
    """

    name: str
    run: Run
    names: tuple[str, ...]
    taken: bool = False


# -- parameters -------------------------------------------------------------------------------

KEY = "sk-abcdef0123456789abcdef0123456789"
LONG = "1" + "0" * 400
PARAMETERS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    # name: (parameter file, what the error must name)
    "key twice": ("seed: 1\nname: a\nseed: 2\n", ("seed",)),
    "key mistyped": ("seeed: 1\n", ("seeed", "seed")),
    "number as YAML reads text": ("train_tasks: 1e3\n", ("train_tasks", "1000")),
    "number in quotes": ('seed: "1"\n', ("seed", "quotes")),
    "infinite temperature": ("temperature: .inf\n", ("temperature",)),
    "temperature is no number": ("temperature: .nan\n", ("temperature",)),
    "infinite learning rate": ("dpo_lr: .inf\n", ("dpo_lr",)),
    "infinite beta": ("beta: .inf\n", ("beta",)),
    "octal": ("seed: 010\n", ("line 1", "010")),
    "sexagesimal": ("api_timeout: 1:30\n", ("line 1", "1:30")),
    "huge integer": (f"prompt_tokens: {LONG}\n", ("prompt_tokens",)),
    "huge iterations": (f"iterations: {LONG}\n", ("iterations",)),
    "huge batch": ("batch_size: 100000000000000000000\n", ("batch_size",)),
    "negative prompt": ("prompt_tokens: -1\n", ("prompt_tokens",)),
    "negative seed": ("seed: -1\n", ("seed",)),
    "no tasks": ("train_tasks: 0\n", ("train_tasks",)),
    "top_p over 1": ("top_p: 1.5\n", ("top_p",)),
    "top_p 0": ("top_p: 0\n", ("top_p",)),
    "discount 0": ("discount: 0\n", ("discount",)),
    "all held out": ("heldout_share: 1.0\n", ("heldout_share",)),
    "negative margin": ("min_margin: -1\n", ("min_margin",)),
    "few resamples": ("bootstrap: 1\n", ("bootstrap",)),
    "negative processes": ("processes: -1\n", ("processes",)),
    "no seeds": ("seeds: 0\n", ("seeds",)),
    "shares over 1": ("test_share: 0.9\n", ("test_share",)),
    "positive invalid value": ("invalid_value: 1.0\n", ("invalid_value",)),
    "device of another maker": ("device: tpu\n", ("device",)),
    "dtype unknown": ("dtype: float16\n", ("dtype",)),
    "executor unknown": ("executor: dask\n", ("executor",)),
    "float for integer": ("seed: 1.0\n", ("seed",)),
    "boolean for integer": ("seed: true\n", ("seed",)),
    "date for integer": ("seed: 2024-01-01\n", ("seed",)),
    "text for boolean": ("warm_start: yes please\n", ("warm_start",)),
    "quoted boolean": ('warm_start: "no"\n', ("warm_start",)),
    "list for text": ("agent: [a]\n", ("agent",)),
    "null for text": ("agent: null\n", ("agent",)),
    "number for a list": ("extra_arms: 3\n", ("extra_arms",)),
    "number in a list of texts": ("extra_arms: [3]\n", ("extra_arms",)),
    "list for a mapping": ("api_extra: [1]\n", ("api_extra",)),
    "NaN in a mapping": ("api_extra: {temperature: .nan}\n", ("api_extra",)),
    "environment is a function of Python": ("environment: os:system\n", ("environment", "os")),
    "environment unknown": ("environment: webshp\n", ("webshp", "webshop")),
    "environment without module": ("environment: no_such_module:WORLD\n", ("no_such_module",)),
    "estimator mistyped": ("estimator: step_dp\n", ("step_dp", "step_dpo")),
    "estimator is a function": ("estimator: json:dumps\n", ("json:dumps",)),
    "estimator without attribute": ("estimator: json:nothing\n", ("json",)),
    "arm is a function": ("extra_arms: [json:dumps]\n", ("json:dumps",)),
    "arm without a module": ("extra_arms: [no_such_module:ARM]\n", ("no_such_module",)),
    "arm twice": (
        "extra_arms: [qvlib.agents.sampling:SAMPLE]\n",
        ("extra_arms", "sample"),
    ),
    "setting of another world": ("environment: hotpotqa\nshow_attributes: true\n", ("webshop",)),
    "empty runs_dir": ('runs_dir: ""\n', ("runs_dir",)),
    "NUL in a path": ('runs_dir: "a\\0b"\n', ("runs_dir",)),
    "name climbs": ("name: ../up\n", ("name",)),
    "empty name": ('name: ""\n', ("name",)),
    "endless name": (f"name: {'x' * 3000}\n", ("name",)),
    "address without scheme": ("api_base_url: host/v1\n", ("api_base_url",)),
    "password in the address": ("api_base_url: https://me:secret@host/v1\n", ("api_base_url",)),
    "key in the path": (f"api_base_url: https://host/{KEY}/v1\n", ("api_base_url",)),
    "key in the fragment": (f"api_base_url: https://host/v1#{KEY}\n", ("api_base_url",)),
    "key in the query": (f"api_base_url: https://host/v1?key={KEY}\n", ("api_base_url",)),
    "key for its variable": (f"api_key_variable: {KEY}\n", ("api_key_variable",)),
    "heads do not divide": ("agent_width: 100\nagent_heads: 3\n", ("agent_width", "agent_heads")),
    "Q of a small agent by name": ("q_base: small\n", ("q_base",)),
    "Q behind a server": ("q_base: api:x\n", ("q_base",)),
    "prior of a server": ("agent: api:x\nprior_weight: 1.0\n", ("prior_weight",)),
    "not YAML": ("a: [\n", ("not YAML",)),
    "tabs": ("seed:\n\t- 1\n", ("not YAML",)),
    "a list": ("- seed\n- 1\n", ("key: value",)),
    "a sentence": ("seed 1\n", ("key: value",)),
    "empty": ("", ("key: value",)),
    "binary": (bytes(range(256)), ("bad.yml",)),
    "key is a number": ("1: 2\n", ("1",)),
    "key is a list": ("? [a]\n: 1\n", ("bad.yml",)),
    "Python object": ("seed: !!python/object/apply:os.getpid []\n", ("bad.yml",)),
    "two documents": ("seed: 1\n---\nseed: 2\n", ("bad.yml",)),
    "alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
            for a, b in zip("abcdefghi", "bcdefghij", strict=False)
        ),
        ("bad.yml",),
    ),
    "nested 400 levels": ("seed: " + "[" * 400 + "]" * 400 + "\n", ("bad.yml",)),
    "nested 100,000 levels": ("seed: " + "[" * 100_000 + "\n", ("bad.yml",)),
    "field of 2 MB": (f"agent_width: {'x' * 2_000_000}\n", ("bad.yml",)),
    "key of 2 MB": (f"{'x' * 2_000_000}: 1\n", ("bad.yml",)),
}


def _parameters(text: str | bytes, made: Path, here: Path) -> int:
    from qvlib.cli import main

    (here / "bad.yml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return main(["params", str(here / "bad.yml")])


def _unknown_user(made: Path, here: Path) -> int:
    """A folder is looked for when work begins."""
    from qvlib.cli import main

    (here / "bad.yml").write_text("runs_dir: ~no_such_user_here/runs\n")
    return main(["run", str(here / "bad.yml")])


COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "file is not there": (("params", "HERE/none.yml"), ("none.yml", "params/")),
    "file is a folder": (("params", "HERE"), ("cannot be read",)),
    "override mistyped": (("run", "params/smoke.yml", "-p", "seeed", "1"), ("seeed", "seed")),
    "override is no number": (("run", "params/smoke.yml", "-p", "seed", "one"), ("seed",)),
    "override NaN": (("run", "params/smoke.yml", "-p", "temperature", "nan"), ("temperature",)),
    "no such notebook": (("run", "params/smoke.yml", "--only", "99"), ("99",)),
    "index of nothing": (("index", "HERE/typo"), ("typo",)),
    "needs of nothing": (("needs", "params/quick.yml", "--from", "HERE/typo"), ("typo",)),
    "needs with NaN": (("needs", "params/quick.yml", "--reply-tokens", "nan"), ("reply-tokens",)),
    "parity of nothing": (("parity", "webshop", "HERE/typo"), ("typo",)),
    "parity of hotpotqa of nothing": (("parity", "hotpotqa", "HERE/typo"), ("typo",)),
}


def _command(arguments: tuple[str, ...], made: Path, here: Path) -> int:
    from qvlib.cli import main

    return main([argument.replace("HERE", str(here)) for argument in arguments])


# -- grids ------------------------------------------------------------------------------------

GRIDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown parameter": ("a: {iteratons: [1, 2]}\n", ("iteratons", "iterations")),
    "a list": ("- 1\n", ("grid.yml",)),
    "axis is a number": ("a: 3\n", ("'a'",)),
    "value of another type": ("a: {iterations: [many]}\n", ("iterations",)),
    "not YAML": ("a: {", ("grid.yml",)),
    "empty": ("", ("grid.yml",)),
}


def _grid(text: str | None, made: Path, here: Path) -> int:
    from qvlib.pipeline import grids
    from qvlib.pipeline.params import make

    if text is not None:
        (here / "grid.yml").write_text(text)
    return _as_command(lambda: grids.read(make({"grid": str(here / "grid.yml")})))


# -- data files -------------------------------------------------------------------------------

SHOP = ("items_shuffle.json", "items_ins_v2.json")
ENCYCLOPAEDIA = ("questions.jsonl", "corpus.jsonl")
OFFICIAL = ("hotpot_made.json",)  # with the articles in it
FOLDERS = {"webshop": SHOP, "hotpotqa": ENCYCLOPAEDIA, "official": OFFICIAL}


def _halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": _halved,
    "empty": lambda content: b"",
    "binary": lambda content: bytes(range(256)) * 10,
    "another form": lambda content: b"42\n",
    "list of numbers": lambda content: b"[1, 2]\n",
    "a page of HTML": lambda content: b"<!DOCTYPE html><p>404</p>\n",
    "UTF-16": lambda content: content[:2000].decode().encode("utf-16"),
    "nested 100,000 levels": lambda content: b"[" * 100_000,
}


def _damaged(world: str, file: str, damage: str, made: Path, here: Path) -> int:
    folder = shutil.copytree(made / world, here / "data")
    path = folder / file
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    return _data(world, here, data_dir=str(folder))


def _zipped(world: str, file: str, made: Path, here: Path) -> int:
    """A file that says it is gzipped, and is not."""
    folder = shutil.copytree(made / world, here / "data")
    os.rename(folder / file, folder / f"{file}.gz")
    return _data(world, here, data_dir=str(folder))


def _twice(world: str, file: str, made: Path, here: Path) -> int:
    folder = shutil.copytree(made / world, here / "data")
    shutil.copy(folder / file, folder / f"{file}.gz")
    return _data(world, here, data_dir=str(folder))


def _gone(world: str, file: str, made: Path, here: Path) -> int:
    folder = shutil.copytree(made / world, here / "data")
    (folder / file).unlink()
    return _data(world, here, data_dir=str(folder))


QUESTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no id": ({"id": None}, ("questions.jsonl", "id")),
    "answer is a number": ({"answer": 7}, ("questions.jsonl", "answer")),
    "question is null": ({"question": None}, ("questions.jsonl", "question")),
    "facts are a text": ({"supporting_facts": "all"}, ("questions.jsonl", "supporting_facts")),
    "fact of no article": ({"supporting_facts": [["No Such Page", 0]]}, ("No Such Page",)),
    "half a surrogate": ({"question": "who \ud800?"}, ("questions.jsonl",)),
    "half a surrogate in the id": ({"id": "q\udfff"}, ("questions.jsonl",)),
}


def _question(changes: Mapping[str, Any], made: Path, here: Path) -> int:
    folder = shutil.copytree(made / "hotpotqa", here / "data")
    first, *rest = (folder / "questions.jsonl").read_text().splitlines()
    record = {**json.loads(first), **changes}
    (folder / "questions.jsonl").write_text("\n".join([json.dumps(record), *rest]) + "\n")
    return _data("hotpotqa", here, data_dir=str(folder))


def _repeated_question(made: Path, here: Path) -> int:
    folder = shutil.copytree(made / "hotpotqa", here / "data")
    first, *rest = (folder / "questions.jsonl").read_text().splitlines()
    (folder / "questions.jsonl").write_text("\n".join([first, first, *rest]) + "\n")
    return _data("hotpotqa", here, data_dir=str(folder))


def _blank_line(made: Path, here: Path) -> int:
    folder = shutil.copytree(made / "hotpotqa", here / "data")
    with open(folder / "questions.jsonl", "a") as file:
        file.write("\n")
    return _data("hotpotqa", here, data_dir=str(folder))


PRODUCTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "asin is a number": ({"asin": 7}, ("items_shuffle.json",)),
    "name is null": ({"name": None}, ("items_shuffle.json", "name")),
    "options are a number": ({"customization_options": 7}, ("items_shuffle.json", "options")),
    "price is a list": ({"pricing": [1]}, ("items_shuffle.json", "pricing")),
    "category is null": ({"category": None}, ("items_shuffle.json", "category")),
    "half a surrogate": ({"name": "lamp \ud800"}, ("items_shuffle.json",)),
}


def _product(changes: Mapping[str, Any], made: Path, here: Path) -> int:
    folder = shutil.copytree(made / "webshop", here / "data")
    products = json.loads((folder / "items_shuffle.json").read_text())
    products[0] |= changes
    (folder / "items_shuffle.json").write_text(json.dumps(products))
    return _data("webshop", here, data_dir=str(folder))


def _data(world: str, here: Path, **more: Any) -> int:
    name = "hotpotqa" if world == "official" else world
    return _until("data", here, environment=name, **more)


# -- environments of one's own ------------------------------------------------------------------

OWN = """
from dataclasses import dataclass
from qvlib.core.types import State, Task

@dataclass(frozen=True)
class World:
    name: str = "own"
    max_steps: int = 3
    timeout_value: float = 0.0

    def tasks(self, split):
        first = {"train": 0, "dev": 50, "test": 60}[split]
        return [Task(f"t{i}", f"do {i}", f"g{i}") for i in range(first, first + 60)]

    def reset(self, task):
        return State(task=task, observation="here", history=())

    def step(self, state, action):
        return state

    def accepts(self, state, action):
        return True

def make(settings):
    return World()
"""
ENVIRONMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no function": ("", ("own_world", "make")),
    "gives nothing": ("def make(settings): pass", ("own_world:make",)),
    "gives a thing without members": (
        "def make(settings): return object()",
        ("own_world:make", "tasks"),
    ),
    "splits share tasks": (OWN, ("train", "dev", "share")),
    "not Python": ("def make(settings:", ("own_world",)),
    "refuses by itself": (
        "from qvlib.base.errors import QvlibError\n"
        "def make(settings): raise QvlibError('no map.txt; draw one')",
        ("no map.txt",),
    ),
    "half a surrogate in an id": (
        OWN.replace('"dev": 50, "test": 60', '"dev": 100, "test": 200').replace(
            'f"t{i}"', 'f"t{i}\\ud800"'
        ),
        ("t0",),
    ),
}


def _environment(source: str, made: Path, here: Path) -> int:
    (here / "own_world.py").write_text(source)
    sys.path.insert(0, str(here))
    return _as_command(lambda: _to_stage("data", here, {"environment": "own_world:make"}))


# -- trees of one's own -------------------------------------------------------------------------

ROOT = {"node": "0", "parent": None, "action": None, "visits": 4, "value": 0.4}
CHILDREN = [
    {"node": f"0.{i}", "parent": "0", "action": f"go {i}", "visits": 2, "value": i / 2}
    for i in range(2)
]
NODES: dict[str, tuple[Any, tuple[str, ...]]] = {
    # what a child is instead
    "value NaN": ({"value": float("nan")}, ("t1", "0.0", "value")),
    "value null": ({"value": None}, ("t1", "0.0", "value")),
    "value a text": ({"value": "0.5"}, ("t1", "0.0", "value")),
    "value a list": ({"value": [0.5]}, ("t1", "0.0", "value")),
    "value a sum": ({"value": 2.4}, ("t1", "0.0", "value")),
    "value 50": ({"value": 50}, ("t1", "0.0", "value")),
    "visits null": ({"visits": None}, ("t1", "0.0", "visits")),
    "visits a text": ({"visits": "2"}, ("t1", "0.0", "visits")),
    "visits negative": ({"visits": -1}, ("t1", "0.0", "visits")),
    "action a number": ({"action": 7}, ("t1", "0.0", "action")),
    "no action": ({"action": None}, ("t1", "0.0", "action")),
    "name of the root": ({"node": "0"}, ("t1", "'0'")),
    "name of its sibling": ({"node": "0.1"}, ("t1", "0.1")),
    "parent unknown": ({"parent": "9"}, ("t1", "9")),
    "its own parent": ({"parent": "0.0"}, ("t1", "0.0")),
    "name a list": ({"node": ["0"]}, ("t1",)),
}
TREES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no nodes": ({"task": "t1", "nodes": []}, ("nodes",)),
    "no task": ({"nodes": [ROOT, *CHILDREN]}, ("task",)),
    "nodes a text": ({"task": "t1", "nodes": "all"}, ("t1",)),
    "node a number": ({"task": "t1", "nodes": [ROOT, 7]}, ("t1",)),
    "a list": ([ROOT], ("tree",)),
    "no value": (
        {"task": "t1", "nodes": [ROOT, {k: v for k, v in CHILDREN[0].items() if k != "value"}]},
        ("t1", "value"),
    ),
}


def _tree(tree: Any, made: Path, here: Path) -> int:
    from qvlib.core.preferences import build_pairs

    return _as_command(lambda: build_pairs([tree], "all_nodes"))


# -- finished stages that were changed ------------------------------------------------------------


def _edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def edited(folder: Path) -> None:
        path = folder / name
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before

    return edited


def _flip(name: str) -> Callable[[Path], None]:
    def flipped(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) * 2 // 3] ^= 1
        (folder / name).write_bytes(content)

    return flipped


def _cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def _removed(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _reward_in_table(folder: Path) -> None:
    import pandas as pd

    table = pd.read_parquet(folder / "episodes.parquet")
    table.loc[0, "reward"] = 1.0 - table.loc[0, "reward"]
    table.to_parquet(folder / "episodes.parquet", index=False)


def _control_as_q(folder: Path) -> None:
    (control,) = folder.parent.glob("control-*")
    shutil.rmtree(folder / "model")
    shutil.copytree(control / "model-0", folder / "model")


def _manifest(**changes: Any) -> Callable[[Path], None]:
    def edited(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edited


STAGES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    # what: (stage's folder, change, what the error must name)
    "reward in a table": ("episodes-sample", _reward_in_table, ("episodes.parquet", "delete")),
    "reward 7 in a line": (
        "episodes-sample",
        _edit("episodes.jsonl", lambda text: text.replace('"reward": ', '"reward": 7', 1)),
        ("episodes.jsonl", "delete"),
    ),
    "reward NaN in a line": (
        "episodes-sample",
        _edit("episodes.jsonl", lambda text: text.replace('"reward": ', '"reward": NaN, "x": ', 1)),
        ("episodes.jsonl", "delete"),
    ),
    "line of an episode removed": (
        "episodes-greedy",
        _edit("episodes.jsonl", lambda text: text.partition("\n")[2]),
        ("episodes.jsonl", "delete"),
    ),
    "line {}": (
        "episodes-q_n5",
        _edit("episodes.jsonl", lambda text: text + "{}\n"),
        ("episodes.jsonl", "delete"),
    ),
    "a byte of the agent's weights": (
        "agent",
        _flip("model/model.safetensors"),
        ("model.safetensors",),
    ),
    "a byte of the Q model's weights": (
        "q_model",
        _flip("model/model.safetensors"),
        ("model.safetensors",),
    ),
    "the control in the Q model's place": ("q_model", _control_as_q, ("model/", "exchanged")),
    "the agent's model gone": ("agent", _removed("model"), ("model",)),
    "the Q model's weights gone": (
        "q_model",
        _removed("model/model.safetensors"),
        ("model.safetensors",),
    ),
    "tokenizer edited": (
        "agent",
        _edit("model/tokenizer.json", lambda text: text.replace("version", "vers1on", 1)),
        ("tokenizer.json",),
    ),
    "trees edited": (
        "trees",
        _edit("trees.jsonl", lambda text: text.replace('"visits": 1', '"visits": 2', 1)),
        ("trees.jsonl",),
    ),
    "trees gone": ("trees", _removed("trees.jsonl"), ("trees.jsonl",)),
    "table of trees cut off": ("trees", _cut("trees.parquet"), ("trees.parquet",)),
    "pairs cut off": ("pairs", _cut("pairs.parquet"), ("pairs.parquet",)),
    "pairs gone": ("pairs", _removed("pairs.parquet"), ("pairs.parquet",)),
    "curve cut off": ("agent", _cut("curve.parquet"), ("curve.parquet",)),
    "products edited": (
        "data",
        _edit("items_shuffle.json", lambda text: text.replace('"name"', '"nom"', 1)),
        ("items_shuffle.json",),
    ),
    "products gone": ("data", _removed("items_shuffle.json"), ("items_shuffle.json",)),
    "manifest is a list": (
        "trees",
        lambda folder: (folder / "manifest.json").write_text("[]"),
        ("manifest.json",),
    ),
    "manifest cut off": ("trees", _cut("manifest.json"), ("manifest.json",)),
    "manifest gone mad": (
        "pairs",
        lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
        ("manifest.json",),
    ),
    "facts a list": ("trees", _manifest(facts=[]), ("manifest.json", "facts")),
    "seconds a text": ("trees", _manifest(seconds="long"), ("manifest.json", "seconds")),
    "status unknown": ("q_model", _manifest(status="done"), ("manifest.json", "status")),
    "facts edited": ("pairs", _manifest(facts={"pairs": 10**6}), ("manifest.json",)),
    "parameters edited": (
        "trees",
        _edit("manifest.json", lambda text: text.replace('"iterations": 12', '"iterations": 13')),
        ("iterations", "13", "12"),
    ),
}


def _stage(
    stage: str, change: Callable[[Path], None], made: Path, here: Path, running: bool = False
) -> int:
    from tests.killing import tiny

    shutil.copytree(made / "run" / "runs", here / "runs")
    (folder,) = here.glob(f"runs/{stage}-????????")
    if running:
        _manifest(status="running", finished=None)(folder)
    change(folder)
    return _as_command(lambda: _to_stage("episodes", here, _own(tiny(here).given)))


RUNNING: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "a line that is not JSON": (
        "trees",
        _edit("trees.jsonl", lambda text: "{\n" + text),
        ("trees.jsonl", "line 1"),
    ),
    "a line {} in a stage that runs": (
        "trees",
        _edit("trees.jsonl", lambda text: "{}\n" + text),
        ("trees.jsonl", "line 1", "task"),
    ),
    "reward 7 in a stage that runs": (
        "episodes-sample",
        _edit("episodes.jsonl", lambda text: text.replace('"reward": ', '"reward": 7', 1)),
        ("episodes.jsonl", "line 1", "7"),
    ),
    "reward NaN in a stage that runs": (
        "episodes-sample",
        _edit("episodes.jsonl", lambda text: text.replace('"reward": ', '"reward": NaN, "x": ', 1)),
        ("episodes.jsonl", "line 1"),
    ),
    "the lock is a link": (
        "trees",
        lambda folder: ((folder / ".lock").unlink(), (folder / ".lock").symlink_to("none")),
        (".lock", "link"),
    ),
    "the lines are a link": (
        "trees",
        lambda folder: (
            (folder / "trees.jsonl").unlink(),
            (folder / "trees.jsonl").symlink_to("/dev/null"),
        ),
        ("trees.jsonl", "link"),
    ),
}


def _runs_dir_is_a_file(made: Path, here: Path) -> int:
    (here / "runs").write_text("mine")
    return _data("webshop", here)


def _read_only(made: Path, here: Path) -> int:
    """A finished run on a disk where nothing can be written is read."""
    from tests.killing import tiny

    shutil.copytree(made / "run" / "runs", here / "runs")
    real = os.open

    def read_only(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(here)):
            raise OSError(30, "Read-only file system", path)
        return real(path, flags, *more, **others)

    os.open = read_only
    code = _as_command(lambda: _to_stage("episodes", here, _own(tiny(here).given)))
    print("read")
    return code


# -- models -------------------------------------------------------------------------------------


def _config(**changes: Any) -> Callable[[Path], None]:
    return _edit("config.json", lambda text: json.dumps({**json.loads(text), **changes}))


def _weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return changed


def _nan(tensors: dict[str, Any]) -> dict[str, Any]:
    name = next(name for name in tensors if "layers.0" in name)
    tensors[name].view(-1)[3] = float("nan")
    return tensors


def _index_of_one(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    name, shard = "model.embed_tokens.weight", "model-00001-of-00001.safetensors"
    save_file({name: tensors[name]}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _as_pickle(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def _own_code(folder: Path) -> None:
    (folder / "modeling_own.py").write_text('raise RuntimeError("own code was run")')
    own = {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "modeling_own.Config"}
    _config(auto_map=own, model_type="own")(folder)


MODELS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "more layers than weights": (_config(num_hidden_layers=9), ("model",)),
    "another kind of model": (_config(model_type="gpt2"), ("model",)),
    "an index that names one tensor": (_index_of_one, ("model",)),
    "NaN weights": (_weights(_nan), ("layers.0",)),
    "no weights": (_removed("model.safetensors"), ("model",)),
    "weights cut off": (_cut("model.safetensors"), ("model",)),
    "no tokenizer": (
        lambda folder: [path.unlink() for path in folder.glob("tokenizer*")],
        ("tokenizer",),
    ),
    "config is not JSON": (_cut("config.json"), ("model",)),
    "code of its own": (_own_code, ("trust_remote_code",)),
    "pickled weights": (_as_pickle, ("pytorch_model.bin",)),
    "no files": (lambda folder: [path.unlink() for path in folder.iterdir()], ("model",)),
}


def _model(change: Callable[[Path], None], made: Path, here: Path) -> int:
    folder = shutil.copytree(made / "model", here / "model")
    change(folder)
    return _until("agent", here, agent=str(folder), other_demonstrations=0)


# -- servers ------------------------------------------------------------------------------------

SERVERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "HTTP 400": ("400", ("400",)),
    "HTTP 401": ("401", ("401",)),
    "HTTP 403": ("403", ("403",)),
    "HTTP 404": ("404", ("404",)),
    "HTTP 422": ("422", ("422",)),
    "HTTP 500, always": ("500", ("500",)),
    "drops the connection": ("refuse", ("127.0.0.1",)),
    "ends in the middle": ("cut", ("127.0.0.1",)),
    "invalid JSON": ("broken", ("127.0.0.1",)),
    "no choices": ("empty", ("127.0.0.1",)),
    "JSON of another form": ("other", ("127.0.0.1",)),
    "never answers": ("hang", ("api_timeout",)),
    "quotes the key": ("echo", ("500",)),
}


def _server(fault: str, made: Path, here: Path) -> int:
    from tests.faulty_server import FaultyServer

    os.environ["OPENAI_API_KEY"] = KEY
    with FaultyServer(always=lambda body: fault) as server:
        return _served(here, server.base_url)


def _no_server(made: Path, here: Path) -> int:
    return _served(here, "http://127.0.0.1:9/v1")


def _no_key(made: Path, here: Path) -> int:
    """The server asks for a key, and there is none."""
    from tests.faulty_server import FaultyServer

    os.environ.pop("OPENAI_API_KEY", None)
    with FaultyServer(always=lambda body: "401") as server:
        return _served(here, server.base_url)


def _proxy(variable: str, value: str, made: Path, here: Path) -> int:
    """A proxy that is not there: a server on loopback is never asked through it."""
    from tests.faulty_server import FaultyServer

    os.environ |= {"OPENAI_API_KEY": KEY, variable: value}
    with FaultyServer() as server:
        code = _served(here, server.base_url)
    print("served")
    return code


def _served(here: Path, address: str) -> int:
    return _until(
        "trees",
        here,
        agent="api:model",
        api_base_url=address,
        api_retries=0,
        api_timeout=1.0,
        other_demonstrations=0,
        train_tasks=1,
        iterations=1,
        filter_actions=False,
    )


def _several_processes(made: Path, here: Path) -> int:
    from qvlib.cli import main

    os.environ |= {"RANK": "0", "WORLD_SIZE": "2"}
    return main(["run", "params/smoke.yml"])


# -- all ----------------------------------------------------------------------------------------


def _cases() -> Iterator[Bad]:
    for name, (text, names) in PARAMETERS.items():
        run = functools.partial(_parameters, text)
        yield Bad(f"parameters: {name}", run, names)
    sixteen = functools.partial(_parameters, "seed: 1\n".encode("utf-16"))  # YAML knows it
    yield Bad("parameters: UTF-16", sixteen, ("seed",), taken=True)
    yield Bad("parameters: unknown user in a path", _unknown_user, ("no_such_user_here",))
    for name, (arguments, names) in COMMANDS.items():
        yield Bad(f"command: {name}", functools.partial(_command, arguments), names)
    for name, (grid, names) in GRIDS.items():
        yield Bad(f"grid: {name}", functools.partial(_grid, grid), names)
    yield Bad("grid: not there", functools.partial(_grid, None), ("grid.yml",))
    for world, files in FOLDERS.items():
        for file in files:
            for damage in DAMAGES:
                run = functools.partial(_damaged, world, file, damage)
                yield Bad(f"data: {file}: {damage}", run, (file.partition(".")[0],))
            kinds = (("not gzipped", _zipped), ("two of a kind", _twice), ("gone", _gone))
            for what, change in kinds:
                name = "questions" if file in OFFICIAL else file.partition(".")[0]
                name = name if what == "gone" else file
                yield Bad(f"data: {file}: {what}", functools.partial(change, world, file), (name,))
    for name, (changes, names) in QUESTIONS.items():
        yield Bad(f"question: {name}", functools.partial(_question, changes), names)
    yield Bad("question: twice", _repeated_question, ("questions.jsonl", "twice"))
    yield Bad("question: a blank line after it", _blank_line, (), taken=True)
    for name, (changes, names) in PRODUCTS.items():
        yield Bad(f"product: {name}", functools.partial(_product, changes), names)
    for name, (source, names) in ENVIRONMENTS.items():
        yield Bad(f"environment: {name}", functools.partial(_environment, source), names)
    for name, (changes, names) in NODES.items():
        tree = {"task": "t1", "nodes": [ROOT, {**CHILDREN[0], **changes}, CHILDREN[1]]}
        yield Bad(f"node: {name}", functools.partial(_tree, tree), names)
    for name, (tree, names) in TREES.items():
        yield Bad(f"tree: {name}", functools.partial(_tree, tree), names)
    for name, (stage, tamper, names) in STAGES.items():
        yield Bad(f"stage: {name}", functools.partial(_stage, stage, tamper), names)
    for name, (stage, tamper, names) in RUNNING.items():
        run = functools.partial(_stage, stage, tamper, running=True)
        yield Bad(f"stage: {name}", run, names)
    yield Bad("stage: runs_dir is a file", _runs_dir_is_a_file, ("runs_dir",))
    yield Bad("stage: on a disk that is read-only", _read_only, ("read",), taken=True)
    for name, (damage_model, names) in MODELS.items():
        yield Bad(f"model: {name}", functools.partial(_model, damage_model), names)
    for name, (fault, names) in SERVERS.items():
        yield Bad(f"server: {name}", functools.partial(_server, fault), names)
    yield Bad("server: is not there", _no_server, ("127.0.0.1:9",))
    yield Bad("server: no key", _no_key, ("OPENAI_API_KEY",))
    for variable, value in (
        ("ALL_PROXY", "socks://127.0.0.1:9"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
    ):
        run = functools.partial(_proxy, variable, value)
        yield Bad(f"server: behind {variable}", run, ("served",), taken=True)
    yield Bad("command: started by a launcher", _several_processes, ("WORLD_SIZE",))


CASES: dict[str, Bad] = {case.name: case for case in _cases()}


def prepare(made: Path) -> None:
    """Make what the cases change: data of two worlds, a model, a finished run."""
    from qvlib.pipeline.params import make
    from tests.killing import run_alone, tiny

    done = made / "done"
    if done.exists():
        return
    run_alone(tiny(made / "run"))
    (agent,) = (made / "run" / "runs").glob("agent-*")
    (data,) = (made / "run" / "runs").glob("data-*")
    shutil.copytree(agent / "model", made / "model", dirs_exist_ok=True)
    (made / "webshop").mkdir(exist_ok=True)
    for path in data.glob("*.json"):
        if path.name != "manifest.json":
            shutil.copy(path, made / "webshop")
    given = {"environment": "hotpotqa", "runs_dir": str(made / "asked" / "runs")}
    assert _as_command(lambda: _to_stage("data", made / "asked", make(given).given)) == 0
    (asked,) = (made / "asked" / "runs").glob("data-*")
    _write_encyclopaedia(asked, made)
    done.touch()


def _write_encyclopaedia(asked: Path, made: Path) -> None:
    """The embedded questions and articles in both forms that are read."""
    (official,) = asked.glob("hotpot_*.json")
    records = json.loads(official.read_text())
    articles: dict[str, str] = {}
    for line in (asked / "corpus.jsonl").read_text().splitlines():
        article = json.loads(line)
        articles[article["title"]] = article["text"]
    for record in records:
        for title, sentences in record["context"]:
            articles.setdefault(title, " ".join(sentences))
    lines = [
        {"id": record.pop("_id"), **{k: v for k, v in record.items() if k != "context"}}
        for record in json.loads(official.read_text())
    ]
    corpus = [{"title": title, "text": text} for title, text in articles.items()]
    for folder in ("hotpotqa", "official"):
        (made / folder).mkdir(exist_ok=True)
    for name, rows in (("questions", lines), ("corpus", corpus)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (made / "hotpotqa" / f"{name}.jsonl").write_text(text)
    shutil.copy(official, made / "official" / OFFICIAL[0])
    shutil.copy(asked / "corpus.jsonl", made / "official")


def _until(stage: str, here: Path, **given: Any) -> int:
    return _as_command(lambda: _to_stage(stage, here, given))


def _to_stage(stage: str, here: Path, given: Mapping[str, Any]) -> None:
    from qvlib import pipeline
    from qvlib.pipeline.params import make

    folders = {"runs_dir": str(here / "runs"), "results_dir": str(here / "results")}
    pipeline.until(stage, make({"wandb_mode": "disabled", **given, **folders}))


def _own(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in ("runs_dir", "results_dir")}


def _as_command(work: Callable[[], Any]) -> int:
    """As the command line does."""
    try:
        work()
    except QvlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    sys.exit(CASES[sys.argv[3]].run(Path(sys.argv[1]), Path(sys.argv[2])))
