"""A grid of ablations: one axis at a time, each cell a whole chain with some parameters changed.

Cells are tried on dev tasks. A cell is named by its parameters: it finds again what it shares with
the run and with other cells, a finished one is skipped, and one that fails is reported while the
others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.base.yaml_text import read_mapping
from qvlib.core.statistics import bootstrap_mean
from qvlib.pipeline.cells import Cells
from qvlib.pipeline.context import Context, context_of
from qvlib.pipeline.pairs import make_chain_pairs
from qvlib.pipeline.params import Params
from qvlib.pipeline.trees import collect_chain
from qvlib.pipeline.trials import try_cell
from qvlib.runs.stage import is_complete, read_stage

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cell:
    """One choice on one axis: what it changes, and all its parameters."""

    axis: str
    label: str
    params: Params


def read(params: Params) -> list[Cell]:
    """The run itself, and the cells of the file that the parameter ``grid`` names.

    An axis of the file is ``axis: {parameter: [values]}`` or ``axis: [{parameter: value, ...}]``.

    Raises:
        QvlibError: no such file, not of that form, or a cell's parameters are refused.
    """
    grid = params.ablations.grid
    form = "a mapping of axes, each `name: {parameter: [values]}`"
    axes = read_mapping(resolve(grid), grid, "grid", form, "params/grids/")
    base = params.replace(seeds=1)
    cells = [Cell("the run", "as it is", base)]
    for axis, choices in axes.items():
        for change in _changes(grid, axis, choices):
            changed = base.changed(change, f"{grid}, axis {axis!r}")
            cells.append(Cell(str(axis), labelled(change), changed))
    return cells


def labelled(change: Mapping[str, Any]) -> str:
    """A change in words: ``beta 0.3, trial_n 2``."""
    return ", ".join(f"{name} {_short(value)}" for name, value in change.items())


def _changes(source: str, axis: Any, choices: Any) -> list[dict[str, Any]]:
    if (
        isinstance(choices, dict)
        and len(choices) == 1
        and isinstance(values := next(iter(choices.values())), list)
        and values
    ):
        (name,) = choices
        return [{name: value} for value in values]
    if isinstance(choices, list) and choices and all(isinstance(c, dict) for c in choices):
        return choices
    raise QvlibError(
        f"{source}: axis {axis!r} is neither {{parameter: [values]}} nor a list of "
        "{parameter: value}"
    )


def run(run_or_context: Params | Context) -> pd.DataFrame:
    """Try every cell that was not tried yet; returns ``table``."""
    context = context_of(run_or_context)
    params = context.params
    cells = read(params)
    todo = {
        cell.params.digest("trial"): cell.params
        for cell in cells
        if not is_complete(cell.params, "trial")
    }
    making = Cells(context, todo)
    with tqdm(total=len(todo), desc="trying the grid", unit="cell") as bar:
        making.each("data", lambda cell: None)
        making.agents()
        making.each("trees", collect_chain)
        making.each("pairs", make_chain_pairs)
        making.fit("q_model")
        making.each("trial", lambda cell: (try_cell(cell), bar.update()))
    return table(cells, params.run.bootstrap, making.failed)


def table(
    cells: Sequence[Cell], resamples: int, failed: Mapping[Any, str] | None = None
) -> pd.DataFrame:
    """One row a cell: reward with Q; paired gain over one sample; paired change against the run.

    The run's own cell is the first. Intervals are 95 %, over groups. ``train_tasks``,
    ``iterations`` and ``candidates`` are the cell's, for curves. A failed cell has no
    numbers and says why under ``failed``; where the run's own failed, there are no changes.
    """
    import pandas as pd

    rows = []
    base: Any = None
    for cell in cells:
        digest = cell.params.digest("trial")
        row: dict[str, Any] = {
            "axis": cell.axis,
            "choice": cell.label,
            "trial": digest,
            "train_tasks": cell.params.search.train_tasks,
            "iterations": cell.params.search.iterations,
            "candidates": cell.params.ablations.trial_n,
        }
        if failed and digest in failed:
            rows.append(row | {"failed": failed[digest]})
            continue
        played = (
            read_stage(cell.params, "trial")
            .table("episodes")
            .pivot(index=["group", "task"], columns="arm", values="reward")
        )
        base = played if cell is cells[0] else base
        if base is not None and not played.index.equals(base.index):
            rows.append(
                row | {"failed": "its dev tasks are not the run's, so it cannot be compared"}
            )
            continue
        groups = played.index.get_level_values("group")
        compared = {"reward": played["q"], "gain": played["q"] - played["sample"]}
        if base is not None:
            compared["change"] = played["q"] - base["q"]
        for name, values in compared.items():
            row |= dict(
                zip(
                    (name, f"{name}_low", f"{name}_high"),
                    bootstrap_mean(values, groups, resamples),
                    strict=True,
                )
            )
        model = read_stage(cell.params, "q_model").facts
        rows.append(
            row
            | {
                "sample": played["sample"].mean(),
                "relative": row["gain"] / (played["sample"].mean() or float("nan")),
                "pairs": model["pairs"],
                "held_out_accuracy": model["held_out_accuracy"],
                "tasks": len(played),
                "groups": groups.nunique(),
                "failed": "",
            }
        )
    found = pd.DataFrame(rows)
    numbers = [
        f"{name}{end}" for name in ("reward", "gain", "change") for end in ("", "_low", "_high")
    ]
    return found.assign(**{name: float("nan") for name in numbers if name not in found})


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
