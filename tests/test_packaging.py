"""What is installed is what is declared: env.yml, the Makefile and pyproject.toml agree."""

import ast
import itertools
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import qvlib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [
    Requirement(line) for line in itertools.chain(PROJECT["dependencies"], *EXTRAS.values())
]
UNPINNED = (
    "spacy",
    "textworld",
    "jericho",
    "scienceworld",
)  # large, or of use with Java only: whoever wants one installs it


def pins():
    environment = yaml.safe_load((ROOT / "env.yml").read_text())
    lines = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    return [line for line in lines if line != "-e ."]


def versions():
    found = {}
    for line in pins():
        name, version = line.split("==")
        found[canonicalize_name(name)] = version
    return found


def test_make_installs_exactly_the_pins_of_env_yml():
    made = subprocess.run(
        ["make", "-s", "pins"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert made == pins() and len(set(made)) == len(made)


def test_a_run_needs_no_more_than_make_installs_for_it():
    planned = subprocess.run(
        ["make", "-nB", ".venv/.installed"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    names = {canonicalize_name(word.partition("==")[0]) for word in planned if "==" in word}
    needed = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert needed <= names
    assert {word for word in planned if "==" in word} < set(pins())
    assert not {"pytest", "jupyterlab", "ray", "mypy"} & names


def test_python_keeps_its_bytecode_where_make_runs_it(tmp_path):
    """Images of containers set this; then each notebook would compile torch and transformers."""
    more = tmp_path / "more.mk"
    more.write_text(
        f"shown:\n\t@{sys.executable} -c 'import sys; print(sys.flags.dont_write_bytecode)'\n"
    )
    done = subprocess.run(
        ["make", "-s", "-f", "Makefile", "-f", more, "shown"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.split() == ["0"]


def test_env_yml_has_the_supported_python():
    environment = yaml.safe_load((ROOT / "env.yml").read_text())
    assert environment["name"] == "qvlib" and environment["channels"] == ["conda-forge"]
    assert "python=3.11" in environment["dependencies"] and PROJECT["requires-python"] == ">=3.11"


@pytest.mark.parametrize(
    "requirement", [r for r in DECLARED if r.name not in UNPINNED], ids=lambda r: r.name
)
def test_pins_lie_in_the_declared_ranges(requirement):
    pinned = versions()
    assert canonicalize_name(requirement.name) in pinned, (
        f"{requirement.name} is declared but not pinned in env.yml"
    )
    assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("name", ["textworld", "jericho"])
def test_make_installs_textworld_in_the_declared_range(name):
    (version,) = re.findall(rf"\b{name}==([\d.]+)", (ROOT / "Makefile").read_text())
    assert EXTRAS["textworld"] and all(
        Requirement(line).specifier.contains(version)
        for line in EXTRAS["textworld"]
        if line.startswith(name)
    )


def test_nothing_is_pinned_that_is_not_declared():
    assert set(versions()) <= {canonicalize_name(r.name) for r in DECLARED}


def imported(folder):
    """Top-level names of all imports in a folder -> a file that has it."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            found.update({name.split(".")[0]: path for name in names})
    return found


@pytest.mark.parametrize("folder", ["qvlib", "tests"])
def test_every_third_party_import_is_declared(folder):
    declared = {canonicalize_name(r.name) for r in DECLARED}
    distributions = metadata.packages_distributions()
    third_party = {
        n: p
        for n, p in imported(ROOT / folder).items()
        if n not in sys.stdlib_module_names
        and n not in ("qvlib", "conftest", "tests")
        and not (ROOT / folder / f"{n}.py").exists()
    }
    assert "yaml" in third_party  # the search finds something
    for name, path in third_party.items():
        owners = {canonicalize_name(d) for d in distributions.get(name, [name])}
        assert owners & declared, (
            f"{path.relative_to(ROOT)} imports {name}, which pyproject.toml does not declare"
        )


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == qvlib.__version__
    assert "2409.09345" in citation["references"][0]["identifiers"][0]["value"]


def test_the_command_line_starts_without_heavy_imports():
    heavy = ["torch", "transformers", "pandas", "wandb", "papermill", "ray"]
    code = (
        "import sys, qvlib.cli, qvlib.pipeline.params; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        ).stdout
        == "[]\n"
    )
