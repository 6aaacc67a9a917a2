"""The results folder as it lies on disk: its runs, and the JSON files that they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qvlib.agents.arms import FORMER
from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path

RANK = ("full", "quick", "ablations", "webshop-small")
PLUMBING = "smoke"


def runs(folder: Path) -> list[Path]:
    """The folders of the runs, those that say most first."""
    folders = [path.parent for path in folder.glob("*/metrics.json")]
    return sorted(folders, key=lambda run: (rank(run.name), run.name))


def rank(name: str) -> int:
    """The place of a run among others, by how much it says."""
    return RANK.index(name) if name in RANK else len(RANK)


def is_plumbing(name: str) -> bool:
    """Whether a run only shows that the parts work: ``smoke``, and ``<environment>-smoke``."""
    return name == PLUMBING or name.endswith(f"-{PLUMBING}")


def url(path: Path, base: Path) -> str:
    """The address of a file in a page that lies in the folder ``base``."""
    return quote(path.relative_to(base).as_posix())


def read(path: Path) -> dict[str, Any]:
    """A JSON file of a run; arms are called as they are now, whatever older ones were.

    Raises:
        QvlibError: it is not readable, or holds no mapping.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise QvlibError(
            f"{display_path(path)} is unreadable ({type(error).__name__}); "
            "run notebooks/07_report.ipynb again"
        ) from None
    if not isinstance(value, dict):
        raise QvlibError(
            f"{display_path(path)} is not a mapping; run notebooks/07_report.ipynb again"
        )
    for table in {"arms", "gains", "gains_over_greedy"} & value.keys():
        if isinstance(value[table], dict):
            value[table] = {FORMER.get(arm, arm): row for arm, row in value[table].items()}
    return value


def read_metrics(run: Path) -> dict[str, Any]:
    """``metrics.json`` of a run's folder, with what older runs tell under another name.

    ``search_iterations``, ``estimator`` and the like come from the parameters that the manifest
    holds, and ``chains`` from the seeds. What a run does not tell is left out.

    Raises:
        QvlibError: a file is not readable, or holds no mapping.
    """
    metrics = read(run / "metrics.json")
    manifest = run / "manifest.json"
    given = read(manifest).get("parameters") if manifest.exists() else None
    if isinstance(given, dict):
        told = given.get("search_iterations", given.get("mcts_iterations"))
        if told is not None:
            metrics.setdefault("search_iterations", told)
        for name in ("environment", "estimator", "prior_weight"):
            if name in given:
                metrics.setdefault(name, given[name])
    metrics.setdefault("chains", len(metrics.get("seeds") or [0]))
    return metrics
