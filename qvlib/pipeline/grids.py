"""A grid of ablations: one axis at a time, each cell the whole chain with some parameters changed, tried on dev tasks.

A cell is named by its parameters: it finds again what it shares with the run and with other cells, a
finished one is skipped, and one that fails is reported while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml
from tqdm.auto import tqdm

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import process_count, slices, stream
from qvlib.base.paths import resolve
from qvlib.core.statistics import bootstrap_mean
from qvlib.pipeline.params import Params, make
from qvlib.runs.stage import is_complete, read_stage


@dataclass(frozen=True)
class Cell:
    """One choice on one axis: what it changes, and all its parameters."""

    axis: str
    label: str
    params: Params


def read(params: Params) -> list[Cell]:
    """The run itself, and the cells of the file ``params.grid``: ``axis: {parameter: [values]}`` or ``axis: [{parameter: value, ...}, ...]``.

    Raises:
        QvlibError: no such file, not of that form, or a cell's parameters are refused.
    """
    path = resolve(params.grid)
    try:
        axes = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise QvlibError(f"{params.grid}: no such grid; see params/grids/") from None
    except OSError as error:
        raise QvlibError(
            f"{params.grid} cannot be read: {error.strerror}; give a grid, see params/grids/"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise QvlibError(f"{params.grid}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(axes, dict):
        raise QvlibError(
            f"{params.grid}: a grid is a mapping of axes, each `name: {{parameter: [values]}}`"
        )
    base = {**params.model_dump(), "seeds": 1}
    return [
        Cell("the run", "as it is", make(base)),
        *(
            Cell(
                str(axis),
                ", ".join(f"{k} {_short(v)}" for k, v in change.items()),
                make({**base, **change}, f"{params.grid}, axis {axis!r}"),
            )
            for axis, choices in axes.items()
            for change in _changes(params.grid, axis, choices)
        ),
    ]


def _changes(source: str, axis: Any, choices: Any) -> list[dict[str, Any]]:
    if (
        isinstance(choices, dict)
        and len(choices) == 1
        and isinstance(next(iter(choices.values())), list)
    ):
        ((name, values),) = choices.items()
        return [{name: value} for value in values]
    if isinstance(choices, list) and choices and all(isinstance(c, dict) for c in choices):
        return choices
    raise QvlibError(
        f"{source}: axis {axis!r} is neither {{parameter: [values]}} nor a list of {{parameter: value}}"
    )


def run(params: Params) -> pd.DataFrame:
    """Try every cell that was not tried yet; returns ``table``. Agents first, then trees, pairs, models, and episodes.

    Each step is done for all cells before the next, so that what cells share is made once and models are
    fitted side by side.
    """
    cells = read(params)
    failed: dict[str, str] = {}
    todo = {
        cell.params.digest("trial"): cell.params
        for cell in cells
        if not is_complete(cell.params, "trial")
    }
    with tqdm(total=len(todo), desc="trying the grid", unit="cell") as bar:
        for one in _distinct(todo.values(), "agent"):
            if not is_complete(one, "agent"):
                _attempt(
                    pipeline.train_agents,
                    one.model_copy(update={"other_demonstrations": 0}),
                    "agent",
                    todo,
                    failed,
                )
        for one in _distinct(todo.values(), "trees"):
            _attempt(pipeline.collect, one, "trees", todo, failed)
        for one in _distinct(todo.values(), "pairs"):
            _attempt(pipeline.make_pairs, one, "pairs", todo, failed)
        models = [
            one for one in _distinct(todo.values(), "q_model") if not is_complete(one, "q_model")
        ]
        for one, message in stream(
            _fit,
            [(part,) for part in slices(models, process_count(params.processes, params.device))],
        ):
            if message:
                _fail(message, one, "q_model", todo, failed)
        for one in list(todo.values()):
            _attempt(pipeline.try_cell, one, "trial", todo, failed)
            bar.update()
    return table(cells, params.bootstrap, failed)


def _distinct(some: Iterable[Params], stage: str) -> list[Params]:
    """One of the parameters for each outcome of a stage."""
    return list({one.digest(stage): one for one in some}.values())


def _fit(some: Sequence[Params]) -> Iterator[tuple[Params, str]]:
    """Fit Q models one after the other; yields each with what went wrong, if anything."""
    for one in some:
        try:
            pipeline.fit_q(one)
            yield one, ""
        except (QvlibError, RuntimeError) as error:
            yield one, str(error)


def _attempt(
    step: Callable[[Params], Any],
    one: Params,
    stage: str,
    todo: dict[str, Params],
    failed: dict[str, str],
) -> None:
    """Make a stage; where it fails, go on with the cells that do not need it."""
    try:
        step(one)
    except (QvlibError, RuntimeError) as error:
        _fail(str(error), one, stage, todo, failed)


def _fail(
    message: str, one: Params, stage: str, todo: dict[str, Params], failed: dict[str, str]
) -> None:
    """Take every cell that needs this stage from what is to be done."""
    for digest, other in list(todo.items()):
        if other.digest(stage) == one.digest(stage):
            failed[digest] = message.strip().splitlines()[-1]
            del todo[digest]


def table(
    cells: Sequence[Cell], resamples: int, failed: dict[str, str] | None = None
) -> pd.DataFrame:
    """One row a cell: reward with Q; its paired gain over one sample; its paired change against the run's own cell, the first.

    Intervals are 95 %, over groups. ``train_tasks``, ``iterations`` and ``candidates`` are the cell's, for
    curves. A failed cell has no numbers and says why under ``failed``; where the run's own failed, there are no changes.
    """
    rows = []
    base: Any = None
    for cell in cells:
        digest = cell.params.digest("trial")
        row: dict[str, Any] = {
            "axis": cell.axis,
            "choice": cell.label,
            "trial": digest,
            "train_tasks": cell.params.train_tasks,
            "iterations": cell.params.iterations,
            "candidates": cell.params.trial_n,
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
