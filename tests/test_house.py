"""The house: what `ls qvlib` shows, who may import whom, the front door, README's first lines."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qvlib
from qvlib.estimators import ESTIMATORS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "qvlib"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_at_most_four_files_stand_at_the_root(capsys):
    files = sorted(path.name for path in PACKAGE.glob("*.py"))
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    with capsys.disabled():
        print(f"\nqvlib/: {len(files)} files ({', '.join(files)}), {len(rooms)} rooms")
    assert len(files) <= 4
    assert rooms[:3] == ["agents", "base", "core"]


def test_an_estimator_or_a_baseline_is_a_file_of_less_than_120_lines():
    baselines = "best_of_n self_consistency rft reflexion lats saycan beam best_first oracle"
    files = [PACKAGE / "agents" / f"{name}.py" for name in baselines.split()]
    files += [PACKAGE / "estimators" / f"{name}.py" for name in ESTIMATORS]
    assert len(files) > 20
    long = {path.name: n for path in files if (n := len(path.read_text().splitlines())) >= 120}
    assert not long


def test_imports_go_downward_only():
    linted = run("-c", "from importlinter.cli import lint_imports_command as m; m()", "--no-cache")
    assert linted.returncode == 0, linted.stdout
    assert "3 kept, 0 broken" in linted.stdout


def test_a_wrong_import_would_be_seen(tmp_path):
    """The rules bite: a core that imports a model room breaks them."""
    import shutil

    shutil.copytree(PACKAGE, tmp_path / "qvlib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    core = tmp_path / "qvlib" / "core" / "dpo.py"
    core.write_text(core.read_text() + "\nfrom qvlib.models import names  # noqa\n")
    linted = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as m; m()",
            "--no-cache",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert linted.returncode != 0
    assert "qvlib.core is not allowed to import qvlib.models" in " ".join(linted.stdout.split())


@pytest.mark.parametrize("room", ["core", "base", "environments", "agents", "estimators"])
def test_a_room_imported_alone_loads_no_heavy_library(room):
    heavy = "transformers trl peft pandas wandb datasets".split()
    code = f"import qvlib.{room}, sys; print(*(m for m in {heavy!r} if m in sys.modules))"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_front_door_has_fifteen_names():
    assert 10 <= len(qvlib.__all__) <= 18
    assert qvlib.__all__ == sorted(qvlib.__all__)
    for name in qvlib.__all__:
        assert getattr(qvlib, name).__doc__, name
    assert set(qvlib.__all__) <= set(dir(qvlib))
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        qvlib.serach  # noqa: B018


@pytest.mark.slow
def test_the_example_of_the_front_door_runs():
    examples = doctest.DocTestFinder(recurse=False).find(qvlib)
    results = [doctest.DocTestRunner().run(example, out=lambda _: None) for example in examples]
    assert sum(result.attempted for result in results) >= 10
    assert sum(result.failed for result in results) == 0


@pytest.mark.slow
def test_the_first_code_of_the_readme_runs_as_it_stands():
    first = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = first[1]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 16
    assert first.start() < 3_000  # on the first screen, after the claim
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    rewards = [float(number) for number in re.findall(r"\d\.\d+", printed.getvalue())]
    assert len(rewards) == 2
    assert all(0 <= reward <= 1 for reward in rewards)
