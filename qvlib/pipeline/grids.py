"""A grid of ablations: one axis at a time, each cell a whole chain with some parameters changed.

Cells are tried on dev tasks, each with as many chains as ``trial_chains`` says. A chain of a cell
is named by its parameters: it finds again what it shares with the run and with other cells, a
finished one is skipped, and one that fails is reported while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.base.yaml_text import read_mapping
from qvlib.core.statistics import mean_interval
from qvlib.pipeline.agents import make_agents
from qvlib.pipeline.context import Context, context_of
from qvlib.pipeline.data import prepare_data
from qvlib.pipeline.pairs import make_chain_pairs
from qvlib.pipeline.params import TRIAL, Params
from qvlib.pipeline.q import fit
from qvlib.pipeline.trees import collect_chain
from qvlib.pipeline.trials import try_cell
from qvlib.runs.stage import is_complete, read_stage

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cell:
    """One choice on one axis: what it changes, and all its parameters.

    control: whether the run's controls are this cell's too, since it changes nothing before them.
    """

    axis: str
    label: str
    params: Params
    control: bool = False

    def chains(self) -> list[Params]:
        """The parameters of each of its chains."""
        seed = self.params.run.seed
        return [
            self.params.replace(seed=seed + k) for k in range(self.params.ablations.trial_chains)
        ]

    def twins(self) -> tuple[str, ...]:
        """The names of its twins."""
        known = self.params.twins()
        return tuple(twin.name for twin in known if self.control or "control" not in twin.needs)

    def stages(self) -> tuple[str, ...]:
        """The stages that each of its chains plays."""
        return ("trial", *(f"{TRIAL}{twin}" for twin in self.twins()))


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
    cells = [Cell("the run", "as it is", base, control=True)]
    for axis, choices in axes.items():
        for change in _changes(grid, axis, choices):
            label = ", ".join(f"{name} {_short(value)}" for name, value in change.items())
            changed = base.changed(change, f"{grid}, axis {axis!r}")
            control = changed.digest("control") == base.digest("control")
            cells.append(Cell(str(axis), label, changed, control))
    return cells


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
    """Try every chain of every cell that was not tried yet; returns ``table``.

    Each stage is made for all before the next, so that what cells share is made once, and agents
    and models are made side by side.
    """
    context = context_of(run_or_context)
    params = context.params
    cells = read(params)
    failed: dict[str, str] = {}
    todo = {
        tuple(map(chain.digest, cell.stages())): (chain, cell.stages())
        for cell in cells
        for chain in cell.chains()
        if not all(is_complete(chain, stage) for stage in cell.stages())
    }
    environments = {params.digest("data"): context.environment}

    def context_for(chain: Params) -> Context:
        digest = chain.digest("data")
        if digest not in environments:
            environments[digest] = prepare_data(chain)
        return Context(chain, environments[digest])

    def attempt(stage: str, step: Callable[[Context], Any]) -> None:
        for chain in _distinct(todo, stage):
            try:
                step(context_for(chain))
            except (QvlibError, RuntimeError) as error:
                _fail(str(error), chain, stage, todo, failed)

    def contexts(stage: str) -> list[tuple[Context, str]]:
        return [(context_for(chain), stage) for chain in _distinct(todo, stage)]

    def fail(stage: str) -> Callable[[Params, str], None]:
        return lambda chain, message: _fail(message, chain, stage, todo, failed)

    with tqdm(total=len(todo), desc="trying the grid", unit="cell") as bar:
        attempt("data", lambda chain: None)
        make_agents(contexts("agent"), fail("agent"))
        attempt("trees", collect_chain)
        attempt("pairs", make_chain_pairs)
        fit(contexts("q_model"), fail("q_model"))
        fit(contexts("control"), fail("control"))
        for chain, stages in list(todo.values()):
            try:
                try_cell(context_for(chain), stages)
            except (QvlibError, RuntimeError) as error:
                _fail(str(error), chain, "trial", todo, failed)
            bar.update()
    return table(cells, params.run.bootstrap, failed)


Todo = dict[tuple[str, ...], tuple[Params, tuple[str, ...]]]
"""The digests of the stages that a chain of a cell plays -> the chain and those stages."""


def _distinct(todo: Todo, stage: str) -> list[Params]:
    """One of the chains for each outcome of a stage that they build on."""
    return list(
        {
            chain.digest(stage): chain
            for chain, stages in todo.values()
            if any(stage in chain.upstream(played) for played in stages)
        }.values()
    )


def _fail(message: str, chain: Params, stage: str, todo: Todo, failed: dict[str, str]) -> None:
    """Take every chain that needs this stage from what is to be done."""
    for key, (other, stages) in list(todo.items()):
        needed = {stage for played in stages for stage in (*other.upstream(played), played)}
        if stage in needed and other.digest(stage) == chain.digest(stage):
            failed[other.digest("trial")] = message.strip().splitlines()[-1]
            del todo[key]


def rewards(cell: Cell) -> pd.DataFrame:
    """What a finished cell earned: a row a chain (0, 1, ...), group and task, a column a player.

    The players are ``sample``, ``q`` and the cell's twins.
    """
    import pandas as pd

    played = [
        read_stage(params, stage).table("episodes").assign(chain=chain)
        for chain, params in enumerate(cell.chains())
        for stage in cell.stages()
    ]
    return pd.concat(played).pivot(index=["chain", "group", "task"], columns="arm", values="reward")


def table(
    cells: Sequence[Cell], resamples: int, failed: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """One row a cell: reward with Q; paired gain over one sample; paired change against the run.

    The run's own cell is the first. Intervals are 95 %, over groups: a bootstrap of one chain, of
    several t over chains and groups. Of each twin its mean reward, and under ``minus_<twin>`` what
    Q earns more. ``train_tasks``, ``iterations`` and ``candidates`` are the cell's, for curves;
    ``pairs`` and ``held_out_accuracy`` the mean of its chains. A failed cell has no numbers and
    says why under ``failed``; where the run's own failed, there are no changes.
    """
    import pandas as pd

    rows = []
    base: Any = None
    for cell in cells:
        row: dict[str, Any] = {
            "axis": cell.axis,
            "choice": cell.label,
            "trial": cell.params.digest("trial"),
            "train_tasks": cell.params.search.train_tasks,
            "iterations": cell.params.search.iterations,
            "candidates": cell.params.ablations.trial_n,
        }
        wrong = why_failed(cell, failed or {})
        if wrong:
            rows.append(row | {"failed": wrong})
            continue
        played = rewards(cell)
        base = played if cell is cells[0] else base
        if base is not None and not played.index.equals(base.index):
            what = "chains or dev tasks" if _chains(played) > 1 else "dev tasks"
            rows.append(row | {"failed": f"its {what} are not the run's, so it cannot be compared"})
            continue
        compared = {"reward": played["q"], "gain": played["q"] - played["sample"]}
        compared |= {f"minus_{twin}": played["q"] - played[twin] for twin in cell.twins()}
        if base is not None:
            compared["change"] = played["q"] - base["q"]
        for name, values in compared.items():
            row |= bounded(name, values, resamples)
        row["reward_low"], row["reward_high"] = (
            max(0, row["reward_low"]),
            min(1, row["reward_high"]),
        )
        models = [read_stage(chain, "q_model").facts for chain in cell.chains()]
        rows.append(
            row
            | {who: played[who].mean() for who in ("sample", *cell.twins())}
            | {
                "relative": row["gain"] / (played["sample"].mean() or float("nan")),
                "pairs": _mean([model["pairs"] for model in models]),
                "held_out_accuracy": _mean([model["held_out_accuracy"] for model in models]),
                "chains": _chains(played),
                "tasks": len(played) // _chains(played),
                "groups": played.index.get_level_values("group").nunique(),
                "failed": "",
            }
        )
    found = pd.DataFrame(rows)
    numbers = [
        f"{name}{end}" for name in ("reward", "gain", "change") for end in ("", "_low", "_high")
    ]
    return found.assign(**{name: float("nan") for name in numbers if name not in found})


def why_failed(cell: Cell, failed: Mapping[str, str]) -> str:
    """What went wrong in a cell's chains; empty where nothing did."""
    wrong = {c.run.seed: failed[d] for c in cell.chains() if (d := c.digest("trial")) in failed}
    if len(set(wrong.values())) == 1 and len(wrong) == len(cell.chains()):
        return next(iter(wrong.values()))
    return "; ".join(f"seed {seed}: {message}" for seed, message in wrong.items())


def bounded(name: str, values: pd.Series, resamples: int) -> dict[str, float]:
    """The mean of values by chain, group and task, and ``_low`` and ``_high`` of its interval."""
    chains, groups = (values.index.get_level_values(level) for level in ("chain", "group"))
    found = mean_interval(values, groups, resamples, chains)
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def _chains(played: pd.DataFrame) -> int:
    return played.index.get_level_values("chain").nunique()


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean over chains, a whole number where it is one; None where a chain does not tell."""
    if None in values:
        return None
    mean = sum(values) / len(values)
    return int(mean) if all(isinstance(v, int) for v in values) and mean == int(mean) else mean


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
