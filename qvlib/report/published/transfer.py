"""Transfer as a matrix: Q trained on one agent's trees chooses among another agent's actions.

Row: whose trees Q was trained on, the agent of a run. Column: whose sampled actions it reranks,
that run's agent or its second agent. A cell is the gain of the highest Q of five over one sample of
the agent whose actions they are, paired by task. A run fills one row, by its arms ``q_n5`` and
``other_agent_q_n5``; one whose agent is made as the other's second agent fills another. Agents are
told apart by how they were made; of several runs with the same row the first is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from qvlib.agents.arms import MAIN
from qvlib.report.formats import difference, relative
from qvlib.report.published.agents import Finished

NOT_PLAYED = "not played"


def made(parameters: Mapping[str, Any], which: str = "agent") -> str:
    """How an agent of a run was made, in words: ``agent`` or ``other_agent``."""
    model = parameters.get(which, "small")  # which older runs do not tell
    if model != "small":
        warm = parameters.get("warm_start") and which == "agent"
        return f"{model}, fine-tuned" if warm else str(model)
    other = which == "other_agent"
    size = "other" if other else "agent"
    width, layers = parameters[f"{size}_width"], parameters[f"{size}_layers"]
    count = parameters["other_demonstrations" if other else "demonstrations"]
    return f"small, {width} wide, {layers} layers, {count:,} demonstrations"


def transfer(runs: Sequence[Finished]) -> pd.DataFrame:
    """One row a benchmark, agent whose trees and agent whose actions.

    ``gain`` over one sample of the latter with ``_low``, ``_high``, ``relative``, and ``foreign``
    (with bounds): what of it another task's instruction does not give.
    """
    rows = []
    for run in runs:
        trees, content = made(run.parameters), run.metrics.get("against", {}).get(MAIN, {})
        rows.append(_row(run, trees, trees, run.metrics["gains"][MAIN], content.get("foreign")))
        if "other_agent_gain" in run.metrics:
            foreign = run.metrics.get("other_agent_against_foreign")
            actions = made(run.parameters, "other_agent")
            rows.append(_row(run, trees, actions, run.metrics["other_agent_gain"], foreign))
    table = pd.DataFrame(rows)
    table = table.drop_duplicates(["benchmark", "trees", "actions"], ignore_index=True)
    # A run without a second agent, and that is no other's second agent, has nothing to transfer.
    apart = table[table["trees"] != table["actions"]]
    linked = {(r.benchmark, name) for r in apart.itertuples() for name in (r.trees, r.actions)}
    keys = zip(table["benchmark"], table["trees"], strict=True)
    return table[[key in linked for key in keys]].reset_index(drop=True)


def _row(
    run: Finished,
    trees: str,
    actions: str,
    gain: Mapping[str, Any],
    foreign: Mapping[str, Any] | None,
) -> dict[str, Any]:
    row = {"benchmark": run.benchmark, "trees": trees, "actions": actions, "run": run.name}
    for name, entry in (("gain", gain), ("foreign", foreign)):
        if entry:
            row[name] = entry["mean"]
            row[f"{name}_low"], row[f"{name}_high"] = entry["ci95"]
    return row | {"relative": gain["relative"]}


def display_transfer(table: pd.DataFrame) -> pd.DataFrame:
    """``transfer`` as matrices, one for agents that met: rows whose trees, columns whose actions.

    The agents of a matrix are its A, B, ...; a row that no run fills says so.
    """
    cells = {(r["benchmark"], r["trees"], r["actions"]): _cell(r) for r in table.to_dict("records")}
    rows = []
    for benchmark, names in _met(table):
        letters = {name: chr(ord("A") + i) for i, name in enumerate(names)}
        rows += [
            {
                "benchmark": benchmark,
                "Q of the trees of": f"{letters[trees]}: {trees}",
                **{
                    f"actions of {letter}": cells.get((benchmark, trees, actions), NOT_PLAYED)
                    for actions, letter in letters.items()
                },
            }
            for trees in names
        ]
    return pd.DataFrame(rows).fillna("")


def _met(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """(benchmark, agents) of each matrix: agents whose trees or actions met in a run."""
    found: list[tuple[str, list[str]]] = []
    for row in table.itertuples():
        pair = [row.trees, row.actions]
        joined = [m for m in found if m[0] == row.benchmark and set(m[1]) & set(pair)]
        names = dict.fromkeys([*(name for m in joined for name in m[1]), *pair])
        found = [m for m in found if m not in joined] + [(row.benchmark, list(names))]
    return found


def _cell(row: Mapping[str, Any]) -> str:
    share = relative(row["relative"])
    gain = difference(row["gain"], row["gain_low"], row["gain_high"])
    return f"{gain} ({share})" if share else gain
