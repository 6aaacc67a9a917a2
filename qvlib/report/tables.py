"""Tables for people: Markdown that lines up in a terminal, CSV with plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from qvlib import environments
from qvlib.base.files import write_atomic
from qvlib.base.paths import resolve
from qvlib.pipeline.params import Params
from qvlib.report import numbers


def write_tables(params: Params) -> dict[str, pd.DataFrame]:
    """Write the report's tables as ``results/<name>/tables/<table>.csv`` and ``.md``; returns them.

    ``summary.md`` is what a run prints at its end.
    """
    made = {
        "arms": numbers.arm_table(params),
        "gains": numbers.gain_table(params),
        "gains_over_greedy": numbers.gain_table(params, numbers.GREEDY),
        "splits": numbers.split_table(params),
        "stages": numbers.stage_table(params),
        "by_seed": numbers.seed_table(params),
    }
    found = numbers.failures(params)
    if found:
        made["failures"] = found[0]
    note = caption(params)
    shown = {
        "arms": display_arms(made["arms"]),
        "gains": display_gains(made["gains"]),
        "gains_over_greedy": display_gains(made["gains_over_greedy"]),
    }
    if found:
        shown["failures"] = display_failures(found[0])
    for name, table in made.items():
        save(params, name, table, shown.get(name, table), note)
    made["summary"] = summary(made["arms"], made["gains"])
    save(
        params,
        "summary",
        made["summary"].assign(test_tasks_hash=made["arms"]["test_tasks_hash"].iloc[0]),
        made["summary"],
        note,
    )
    return made


def save(
    params: Params,
    name: str,
    table: pd.DataFrame,
    shown: pd.DataFrame | None = None,
    note: str = "",
) -> Path:
    """Write a table as CSV and, as ``shown``, as Markdown with a last line ``note``; returns the Markdown's path."""
    folder = resolve(params.results_dir) / params.name / "tables"
    write_atomic(folder / f"{name}.csv", table.to_csv(index=False))
    text = markdown(table if shown is None else shown)
    return write_atomic(folder / f"{name}.md", f"{text}\n\n{note}\n" if note else f"{text}\n")


def summary(arms: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """The result in one table: reward, success, paired gain over one sample, all as text."""
    gain = display_gains(gains).set_index("arm")[["gain", "gain 95 %", "relative"]]
    rows = display_arms(arms)[["arm", "reward", "95 %", "success"]].join(gain, on="arm").fillna("")
    return rows.rename(columns={"gain": "gain over one sample", "gain 95 %": "95 % of gain"})


def display_arms(table: pd.DataFrame) -> pd.DataFrame:
    """``numbers.arm_table`` rounded, for reading; costs are means a task, refused and unparsable shares of the draws."""
    shown = pd.DataFrame(
        {
            "arm": table["arm"],
            "reward": _each("{:.3f}", table["reward"]),
            "95 %": _each("[{:.3f}, {:.3f}]", table["reward_low"], table["reward_high"]),
            "success": _each("{:.1%}", table["success"]),
            "success 95 %": _each("[{:.1%}, {:.1%}]", table["success_low"], table["success_high"]),
            "tasks": table["tasks"],
            "seeds": table["seeds"],
            "shuffles": table["shuffles"],
            "steps": _each("{:.1f}", table["env_steps"]),
            "tokens": _each("{:,.0f}", table["tokens"]),
            "prompt tokens": _each("{:,.0f}", table["prompt_tokens"]),
            "refused": _each("{:.1%}", table["refused_share"]),
        }
    )
    return (
        shown.assign(unparsable=_each("{:.1%}", table["unparsable_share"]))
        if "unparsable_share" in table
        else shown
    )


def display_gains(table: pd.DataFrame) -> pd.DataFrame:
    """``numbers.gain_table`` rounded, for reading."""
    relative = [
        "" if value is None or pd.isna(value) else f"{value:+.1%}" for value in table["relative"]
    ]
    return pd.DataFrame(
        {
            "arm": table["arm"],
            "gain": _each("{:+.3f}", table["gain"]),
            "gain 95 %": _each("[{:+.3f}, {:+.3f}]", table["low"], table["high"]),
            "relative": relative,
            "tasks": table["tasks"],
        }
    )


def display_failures(table: pd.DataFrame) -> pd.DataFrame:
    """``numbers.failures``' table rounded, for reading: scores with three places, shares in percent."""
    scores = {name: _each("{:.3f}", table[name]) for name in ("exact match", "F1") if name in table}
    shares = {
        name: _each("{:.1%}", table[name])
        for name in table.columns
        if name not in ("arm", "episodes", *scores)
    }
    return pd.DataFrame({"arm": table["arm"], "episodes": table["episodes"], **scores, **shares})


def caption(params: Params) -> str:
    """One line that says which tasks a table is about."""
    splits = numbers.split_table(params).to_dict("records")
    sizes = ", ".join(f"{s['split']} {s['tasks']:,} ({s['ids']})" for s in splits)
    second = (
        "The second agent's gain is over its own sample. " if params.other_demonstrations else ""
    )
    seeds = [str(chain.seed) for chain in params.each_seed()]
    over = environments.words(params).groups + (" and seeds" if len(seeds) > 1 else "")
    return (
        f"Run {params.name}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}. Tasks (hash of their ids): {sizes}. {second}"
        f"Intervals: 95 %, bootstrap over {over}, {params.bootstrap:,} resamples."
    )


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table whose columns line up as plain text; numbers are right-aligned."""
    names = [str(c) for c in table.columns]
    right = [_is_number(table[c]) for c in table.columns]
    columns = [_texts(table.iloc[:, i]) for i in range(len(names))]
    cells = [list(row) for row in zip(*columns, strict=True)]
    widths = [max(3, *(len(row[i]) for row in (names, *cells))) for i in range(len(names))]
    rule = [("-" * (w - 1) + ":") if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join(_line(row, widths, right) for row in (names, rule, *cells))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
    return f"| {' | '.join(padded)} |"


def _each(form: str, *columns: pd.Series) -> list[str]:
    return [form.format(*values) for values in zip(*columns, strict=True)]


def _is_number(column: pd.Series) -> bool:
    texts = [
        str(v).lstrip("+-").rstrip("%").replace(",", "")
        for v in column
        if str(v) not in ("", "nan", "None")
    ]
    return bool(texts) and all(t.replace(".", "", 1).isdigit() for t in texts)


def _texts(column: pd.Series) -> list[str]:
    """Cells as text; the numbers of a column have as many decimals as its largest needs for three places."""
    if not pd.api.types.is_float_dtype(column):
        return [_text(v) for v in column]
    known = column.dropna()
    whole = bool((known == known.round()).all())
    decimals = 0 if whole else 3 if known.abs().max() < 10 else 1
    return ["" if pd.isna(v) else f"{v:,.{decimals}f}" for v in column]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:,.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def facts(values: Mapping[str, Any]) -> pd.DataFrame:
    """A mapping as a two-column table."""
    return pd.DataFrame({"what": list(values), "value": [_text(v) for v in values.values()]})
