"""What a table of runs must say of one beside its name, so that rows are not taken for more."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qvlib.agents.arms import BASE, MAIN
from qvlib.base import markup
from qvlib.pipeline.params import EPISODES
from qvlib.report.sentences import scored


def run_notes(told: Mapping[Path, Mapping[str, Any]]) -> dict[Path, list[str]]:
    """Folder of a run -> what Q's arms choose by, if not by Q of step DPO; whose episodes it shows.

    A run that adds a study or an arm to another's chain plays nothing of the method anew: its row
    is no further evidence. Where it shows other numbers, other code made the same chain. told:
    folder -> ``read_metrics``, in the order of the table.
    """
    notes, first = {}, {}
    for run, metrics in told.items():
        score = scored(metrics)
        notes[run] = [f"Q{score}"] if score else []
        played = _digests(run)
        if played and played in first:
            same = _rewards(metrics) == _rewards(told[first[played]])
            what = "episodes of {}" if same else "chain of {}, by other code"
            notes[run].append(what.format(markup.code(first[played].name)))
        first.setdefault(played, run)
    return notes


def _rewards(metrics: Mapping[str, Any]) -> list[Any]:
    """What tells the episodes of two runs of the same parameters apart."""
    arms = metrics.get("arms") or {}
    return [(arms.get(arm) or {}).get("reward_mean") for arm in (BASE, MAIN)]


def _digests(run: Path) -> frozenset[str]:
    """Those of the folders in which the method's episodes lie; of older runs they are not known."""
    try:
        with (run / "tables" / "stages.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return frozenset()
    return frozenset(row["digest"] for row in rows if row.get("stage") == f"{EPISODES}{MAIN}")
