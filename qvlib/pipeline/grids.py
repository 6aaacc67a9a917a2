"""A grid of ablations: one axis at a time, each cell a whole chain with some parameters changed.

Cells are tried on dev tasks, each with as many chains as ``trial_chains`` says. A chain of a cell
is named by its parameters: it finds again what it shares with the run and with other cells, a
finished one is skipped, and one that fails is reported while the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.base.yaml_text import read_mapping
from qvlib.core.statistics import mean_interval
from qvlib.pipeline.cells import Cells
from qvlib.pipeline.context import Context, context_of
from qvlib.pipeline.pairs import make_chain_pairs
from qvlib.pipeline.params import TRIAL, AblationSettings, Params, RunSettings
from qvlib.pipeline.trees import collect_chain
from qvlib.pipeline.trials import trial_of
from qvlib.runs.stage import is_complete, read_stage, seconds_beside

if TYPE_CHECKING:
    import pandas as pd

_OF_THE_RUN = {name for name in RunSettings.names() if not RunSettings.decides(name)} | {
    name for name in AblationSettings.names() if "trial" not in AblationSettings.decides(name)
}
"""Settings that change nothing of what a cell tries."""


@dataclass(frozen=True)
class Cell:
    """One choice on one axis: what it changes, and all its parameters.

    control: whether the run's controls are this cell's too, since it changes nothing before them.
    change: what it changes, by the names of the parameters.
    """

    axis: str
    label: str
    params: Params
    control: bool = False
    change: Mapping[str, Any] = field(default_factory=dict, compare=False)

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

    def every_stage(self) -> list[tuple[Params, str]]:
        """Those stages and all that they build on, with their parameters."""
        found = []
        for chain in self.chains():
            needed = {s for own in self.stages() for s in (own, *chain.upstream(own))}
            found += [each for each in chain.every_stage() if each[1] in needed]
        return found


def read(params: Params) -> list[Cell]:
    """The run itself, and the cells of the file that the parameter ``grid`` names.

    An axis of the file is ``axis: {parameter: [values]}`` or ``axis: [{parameter: value, ...}]``.

    Raises:
        QvlibError: no such file, not of that form, a cell's parameters are refused, or it tries
            what the run or another cell of its axis does.
    """
    grid = params.ablations.grid
    form = "a mapping of axes, each `name: {parameter: [values]}`"
    axes = read_mapping(resolve(grid), grid, "grid", form, "params/grids/")
    base = params.replace(seeds=1)
    cells = [Cell("the run", "as it is", base, control=True)]
    own = base.digest("trial")
    for axis, choices in axes.items():
        source = f"{grid}, axis {axis!r}"
        seen: set[str] = set()
        for change in _changes(grid, axis, choices):
            if taken := [name for name in change if name in _OF_THE_RUN]:
                raise QvlibError(
                    f"{source}: {taken[0]} is the whole run's; set it in the parameter file, not "
                    "here"
                )
            changed = base.changed(change, source)
            digest = changed.digest("trial")
            if digest == own:
                what = labelled(change) or "{}"
                raise QvlibError(f"{source}: {what} is what the run has; leave it out")
            if digest in seen:
                raise QvlibError(f"{source}: {labelled(change)}: the same settings twice")
            seen.add(digest)
            control = changed.digest("control") == base.digest("control")
            cells.append(Cell(str(axis), labelled(change), changed, control, change))
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
    """Try every chain of every cell that was not tried yet; returns ``table``."""
    context = context_of(run_or_context)
    cells = read(context.params)
    chains = [(chain, cell.stages()) for cell in cells for chain in cell.chains()]
    todo = {
        chain.digest("trial"): (chain, stages)
        for chain, stages in chains
        if not all(is_complete(chain, stage) for stage in stages)
    }

    def stages_of(chain: Params) -> tuple[str, ...]:
        return todo[chain.digest("trial")][1]

    making = Cells(context, {digest: chain for digest, (chain, _) in todo.items()})
    with tqdm(total=len(todo), desc="trying the grid", unit="cell") as bar:
        making.each("data", lambda cell: None)
        making.agents()
        making.each("trees", collect_chain)
        making.each("pairs", make_chain_pairs)
        making.fit("q_model")
        making.fit("control", lambda chain: f"{TRIAL}control" in stages_of(chain))
        making.play("trial", lambda cell: trial_of(cell, stages_of(cell.params)), bar.update)
    return table(cells, context.params.run.bootstrap, making.failed)


def seconds(params: Params) -> float:
    """Seconds that the cells have taken so far beside the run's own stages, in all sessions."""
    return seconds_beside(params, (each for cell in read(params) for each in cell.every_stage()))


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
    cells: Sequence[Cell], resamples: int, failed: Mapping[Any, str] | None = None
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


def why_failed(cell: Cell, failed: Mapping[Any, str]) -> str:
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
