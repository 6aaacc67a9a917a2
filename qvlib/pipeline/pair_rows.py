"""Reading the preference pairs of a finished stage."""

from __future__ import annotations

from qvlib.core.preferences import Pair
from qvlib.pipeline.params import Params
from qvlib.runs.stage import read_stage


def load_pairs(params: Params) -> list[Pair]:
    """The pairs of ``make_pairs``."""
    rows = read_stage(params, "pairs").table("pairs").to_dict("records")
    return [Pair(**{**row, "path": tuple(row["path"])}) for row in rows]
