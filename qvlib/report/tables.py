"""Tables for people: Markdown that lines up in a terminal, CSV with plain numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from qvlib.agents.arms import GREEDY
from qvlib.base import markup
from qvlib.base.files import write_atomic
from qvlib.base.paths import resolve
from qvlib.environments import names_of
from qvlib.pipeline.context import Context
from qvlib.pipeline.data import world_of
from qvlib.pipeline.params import Params
from qvlib.report import numbers, sentences
from qvlib.report.formats import interval, number, relative, signed
from qvlib.report.numbers import against

REWARD, SHARE = "{:.3f}".format, "{:.1%}".format


def write_tables(context: Context, params: Params | None = None) -> dict[str, pd.DataFrame]:
    """Write the report's tables as ``results/<name>/tables/<table>.csv`` and ``.md``; returns them.

    ``summary.md`` is what a run prints at its end. params: the run's, where the context is of one
    of its chains.
    """
    params = params or context.params
    written = {
        "arms": numbers.arm_table(params),
        "gains": numbers.gain_table(params),
        "gains_over_greedy": numbers.gain_table(params, GREEDY),
        "splits": numbers.split_table(params),
        "stages": numbers.stage_table(params),
        "by_seed": numbers.seed_table(params),
    }
    failed = numbers.failures(context, params)
    if failed:
        written["failures"] = failed[0]
    reached = numbers.parts(params, context)
    if reached:
        written["parts"] = numbers.parts_table(reached)
    display = {
        "arms": display_arms,
        "parts": display_parts,
        "gains": display_gains,
        "gains_over_greedy": display_gains,
        "failures": display_failures,
    }
    note = caption(params)
    for name, table in written.items():
        save(params, name, table, display[name](table) if name in display else table, note)
    written["summary"] = summary(written["arms"], written["gains"])
    stamped = written["summary"].assign(test_tasks_hash=written["arms"]["test_tasks_hash"].iloc[0])
    save(params, "summary", stamped, written["summary"], note)
    return written


def save(
    params: Params,
    name: str,
    table: pd.DataFrame,
    display: pd.DataFrame | None = None,
    note: str = "",
) -> Path:
    """Write a table as CSV and as Markdown; returns the Markdown's path.

    Args:
        display: the table as the Markdown has it, where that is another.
        note: a last line of the Markdown.
    """
    folder = resolve(params.run.results_dir) / params.run.name / "tables"
    write_atomic(folder / f"{name}.csv", table.to_csv(index=False, float_format=_twelve_digits))
    text = markdown(table if display is None else display)
    return write_atomic(folder / f"{name}.md", f"{text}\n\n{note}\n" if note else f"{text}\n")


def _twelve_digits(value: float) -> str:
    """A fraction for a CSV: processors sum in other orders, and a mean's last digits may differ."""
    return repr(float(f"{value:.12g}"))


def summary(arms: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """The result in one table: reward, success, paired gain over one sample, all as text."""
    gain = display_gains(gains).set_index("arm")
    gain = gain[["gain", "gain 95 %", "relative", "relative 95 %"]]
    rows = display_arms(arms)[["arm", "reward", "95 %", "success"]].join(gain, on="arm").fillna("")
    names = {"gain 95 %": "95 % of gain", "relative 95 %": "95 % of relative"}
    return rows.rename(columns={"gain": "gain over one sample", **names})


READS = {
    "sample": "one sample",
    "q_n5": "Q",
    "foreign_q_n5": "Q told another task's instruction",
    "kind_only_n5": "the mean Q of the kind of action",
    "within_kind_n5": "Q within the kind of the first draw",
    "control_q_n5": "Q of shuffled labels, their mean",
    "likely_n5": "the likeliest of five",
    "greedy": "greedy decoding",
    "script": "the fixed script",
    "demonstrator": "the demonstrator",
    "search": "search with the environment",
    "oracle_n5": "of five the best, as an errorless demonstrator tries",
}
"""The rows of "Does Q read?"."""


def reads(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Does Q read? Each arm's gain over one sample, and Q minus the arm; as numbers.

    Arms that were not played are left out.
    """
    rivals = metrics["against"].get("q_n5", {})
    minus = {
        other: rivals[rival] for rival, other in against.rivals("q_n5").items() if rival in rivals
    }
    if (metrics.get("null") or {}).get("mean"):
        minus["control_q_n5"] = metrics["null"]["mean"]
    minus["sample"] = metrics["gains"].get("q_n5")
    rows = []
    for arm, words in READS.items():
        if arm in metrics["arms"]:
            gain, less = metrics["gains"].get(arm), minus.get(arm)
            rows.append(
                {
                    "what chooses": words,
                    "arm": arm,
                    "reward": metrics["arms"][arm]["reward_mean"],
                    **_bounded("gain", gain),
                    **_bounded("q_minus", less),
                }
            )
    return pd.DataFrame(rows)


def _bounded(name: str, entry: Mapping[str, Any] | None) -> dict[str, float]:
    mean, (low, high) = (entry["mean"], entry["ci95"]) if entry else (math.nan, (math.nan,) * 2)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def display_reads(table: pd.DataFrame) -> pd.DataFrame:
    """``reads`` rounded, for reading."""
    return pd.DataFrame(
        {
            "what chooses": table["what chooses"],
            "arm": table["arm"],
            "reward": table["reward"].map(REWARD),
            "gain over one sample": table["gain"].map(signed),
            "95 %": _intervals(table["gain_low"], table["gain_high"], "+.3f"),
            "Q minus it": table["q_minus"].map(signed),
            "95 % of Q minus it": _intervals(table["q_minus_low"], table["q_minus_high"], "+.3f"),
        }
    )


def write_reads(params: Params, metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Write ``reads`` as ``tables/reads.csv`` and ``.md``, which a run prints last; returns it."""
    table = reads(metrics)
    save(params, "reads", table, display_reads(table), sentences.reads(metrics))
    return table


def display_arms(table: pd.DataFrame) -> pd.DataFrame:
    """``numbers.arm_table`` rounded, for reading.

    Costs are means a task; refused and unparsable are shares of the draws.
    """
    display = pd.DataFrame(
        {
            "arm": table["arm"],
            "reward": table["reward"].map(REWARD),
            "95 %": _intervals(table["reward_low"], table["reward_high"], ".3f"),
            "success": table["success"].map(SHARE),
            "success 95 %": _intervals(table["success_low"], table["success_high"], ".1%"),
            "tasks": table["tasks"],
            "seeds": table["seeds"],
            "shuffles": table["shuffles"],
            "steps": table["env_steps"].map("{:.1f}".format),
            "tokens": table["tokens"].map("{:,.0f}".format),
            "prompt tokens": table["prompt_tokens"].map("{:,.0f}".format),
            "refused": table["refused_share"].map(SHARE),
        }
    )
    if "unparsable_share" in table:
        display["unparsable"] = table["unparsable_share"].map(SHARE)
    return display


def display_gains(table: pd.DataFrame) -> pd.DataFrame:
    """``numbers.gain_table`` rounded, for reading.

    Of several chains the interval of the bootstrap over tasks alone stands beside the t interval.
    """
    return pd.DataFrame(
        {
            "arm": table["arm"],
            "gain": table["gain"].map(signed),
            "gain 95 %": _intervals(table["low"], table["high"], "+.3f"),
            **(
                {"over tasks alone": _intervals(table["tasks_low"], table["tasks_high"], "+.3f")}
                if "tasks_low" in table
                else {}
            ),
            "relative": [relative(share, 1) for share in table["relative"]],
            "relative 95 %": _intervals(table["relative_low"], table["relative_high"], "+.1%"),
            "tasks": table["tasks"],
        }
    )


def display_failures(table: pd.DataFrame) -> pd.DataFrame:
    """``numbers.failures``' table rounded, for reading.

    Scores with three places, shares in percent.
    """
    scores = {name: table[name].map(REWARD) for name in ("exact match", "F1") if name in table}
    shares = {
        name: table[name].map(SHARE)
        for name in table.columns
        if name not in ("arm", "episodes", *scores)
    }
    return pd.DataFrame({"arm": table["arm"], "episodes": table["episodes"], **scores, **shares})


def display_parts(table: pd.DataFrame) -> pd.DataFrame:
    """``numbers.parts_table`` rounded, for reading: mean shares of the parts of the reward."""
    shares = {name: table[name].map(SHARE) for name in table.columns if name != "arm"}
    return pd.DataFrame({"arm": table["arm"], **shares})


def display_kinds(table: pd.DataFrame) -> pd.DataFrame:
    """``numbers.kind_table`` rounded, for reading; what a server does not tell is empty."""
    display = table[["kind", "pairs", "tasks"]].copy()
    names = {"own": "Q", "foreign": "foreign instruction", "log_pi": "log π"}
    for way, name in names.items():
        display[name] = _with_bounds(table, way, ".2f")
    for rival in ("foreign", "log_pi"):
        display[f"Q less {names[rival]}"] = _with_bounds(table, f"minus_{rival}", "+.2f")
    return display


def _with_bounds(table: pd.DataFrame, name: str, form: str) -> list[str]:
    columns = (table[column] for column in (name, f"{name}_low", f"{name}_high"))
    return [
        "" if pd.isna(value) else f"{value:{form}} {interval(low, high, form)}"
        for value, low, high in zip(*columns, strict=True)
    ]


def caption(params: Params) -> str:
    """One line that says which tasks a table is about."""
    splits = numbers.split_table(params).to_dict("records")
    sizes = ", ".join(f"{s['split']} {s['tasks']:,} ({s['ids']})" for s in splits)
    second = (
        "The second agent's gain is over its own sample. "
        if params.other_agent.other_demonstrations
        else ""
    )
    seeds = [str(chain.run.seed) for chain in params.each_seed()]
    groups, count = names_of(world_of(params), params.world).groups, splits[-1]["groups"]
    how = (
        f"t over {count:,} {groups} and {len(seeds)} seeds"
        if len(seeds) > 1
        else f"bootstrap over {count:,} {groups}, {params.run.bootstrap:,} resamples"
    )
    few = sentences.few_groups(count, groups) if len(seeds) == 1 else ""
    return (
        f"Run {params.run.name}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}. "
        f"Tasks (hash of their ids): {sizes}. {second}"
        f"Intervals: 95 %, {how}; Wilson's for success.{' ' * bool(few)}{few}"
    )


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table whose columns line up as plain text; numbers are right-aligned."""
    texts = [_texts(column) for _, column in table.items()]
    display = pd.DataFrame(dict(enumerate(texts)), index=table.index, dtype=str)
    return display.set_axis(map(_text, table.columns), axis=1).to_markdown(
        index=False,
        tablefmt="pipe",
        colalign=["right" if _are_numbers(column) else "left" for column in texts],
        disable_numparse=True,
    )


def _intervals(low: pd.Series, high: pd.Series, form: str) -> list[str]:
    return [interval(*bounds, form) for bounds in zip(low, high, strict=True)]


def _are_numbers(texts: Sequence[str]) -> bool:
    known = [text for text in texts if text not in ("", "nan", "None")]
    return bool(known) and all(re.fullmatch(r"[+-]?\d[\d,]*(\.\d+)?%?", text) for text in known)


def _texts(column: pd.Series) -> list[str]:
    """The cells of a column as text.

    Its numbers have as many decimals as the largest needs for three places.
    """
    if not pd.api.types.is_float_dtype(column):
        return [_text(value) for value in column]
    known = column.dropna()
    whole = bool((known == known.round()).all())
    decimals = 0 if whole else 3 if known.abs().max() < 10 else 1
    return ["" if pd.isna(value) else f"{value:,.{decimals}f}" for value in column]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return markup.cell(str(value))


def facts(values: Mapping[str, Any]) -> pd.DataFrame:
    """A mapping as a two-column table."""
    return pd.DataFrame(
        {"what": list(values), "value": pd.Series([*values.values()], dtype=object)}
    )
