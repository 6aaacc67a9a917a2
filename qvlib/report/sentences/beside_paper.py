"""What tables of published figures beside ours allow to say. Other models and data: no test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qvlib.base import markup
from qvlib.report.formats import difference, interval, relative
from qvlib.report.sentences.gains import above_zero, change, listed, verdict_of

Row = Mapping[str, Any]


def _entry(row: Row, name: str) -> dict[str, Any]:
    return {"mean": row[name], "ci95": [row[f"{name}_low"], row[f"{name}_high"]]}


def _known(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def beside_published(rows: Sequence[Row]) -> str:
    """The relative gain of each run beside the published one; takes ``published.agents``."""
    lines = [_beside(row) for row in rows if row["run"] and _known(row["paper_relative"])]
    missing = sorted({row["paper_agent"] for row in rows if not row["run"]})
    if missing:
        names = ", ".join(map(markup.code, missing))
        lines.append(f"Not run here on each benchmark: {names}.")
    if not any(row["run"] for row in rows):
        lines.insert(0, "No run here is of these benchmarks.")
    return "\n".join(f"- {line}" for line in lines)


def _beside(row: Row) -> str:
    told = f"**{row['benchmark']}**, run {markup.code(row['run'])}"
    gain, published = _entry(row, "gain"), f"published {relative(row['paper_relative'])}"
    if not above_zero(gain):
        return f"{told}: {published}; here {change(gain)}, {verdict_of(gain)}."
    share = relative(row.get("relative"))
    low, high = row.get("relative_low"), row.get("relative_high")
    if not _known(low):
        return f"{told}: {published}; here {share}, an interval of which is not told."
    place = "above" if row["paper_relative"] > high else "below"
    inside = low <= row["paper_relative"] <= high
    return (
        f"{told}: {published}; here {share} {interval(low, high, '+.0%')}: the published gain lies "
        f"{'inside' if inside else place} our interval."
    )


def axes(rows: Sequence[Row]) -> str:
    """Axis by axis, which choices differ from the run's own; takes ``published.axes``."""
    names = list(dict.fromkeys(row["axis"] for row in rows))
    tried = sum(_is_compared(row) for row in rows)
    lines = [_axis(name, [row for row in rows if row["axis"] == name]) for name in names]
    lines.append(
        f"Of {tried} comparisons at 95 %, about {0.05 * tried:.1f} would be significant by chance "
        "alone."
    )
    return "\n".join(f"- {line}" for line in lines)


def _is_compared(row: Row) -> bool:
    return not row["own"] and _known(row["change"])


def _axis(name: str, rows: Sequence[Row]) -> str:
    compared = [row for row in rows if _is_compared(row)]
    apart = {
        words: [
            f"{markup.literal(row['choice'])} {change(_entry(row, 'change'))}"
            for row in compared
            if verdict_of(_entry(row, "change")).startswith(f"significantly {side}")
        ]
        for side, words in (("above", "better than the run"), ("below", "worse than the run"))
    }
    parts = [f"{words}: {'; '.join(found)}" for words, found in apart.items() if found]
    if compared and not parts:
        parts = [f"no choice of {len(compared)} is shown to differ from the run"]
    gaining = [row for row in rows if _known(row["gain"]) and above_zero(_entry(row, "gain"))]
    shown = sum(_known(row["gain"]) for row in rows)
    if shown:
        parts.append(f"over one sample {len(gaining)} of {shown} gain")
    failed = [markup.literal(f"{row['choice']} ({row['failed']})") for row in rows if row["failed"]]
    if failed:
        parts.append(f"failed: {'; '.join(failed)}")
    return f"**{markup.literal(name)}**: {'; '.join(parts)}."


def by_candidates(rows: Sequence[Row]) -> str:
    """Whether more candidates help, and over what; takes ``published.by_candidates``."""
    rows = [row for row in rows if row["n"] > 1]
    lines = []
    for name, words in (
        ("gain", "one sample"),
        ("minus_likely", "the likeliest of the same candidates"),
        ("minus_foreign", "itself told another task's instruction"),
    ):
        entries = {row["n"]: _entry(row, name) for row in rows if _known(row.get(name))}
        if not entries:
            continue
        beaten = [n for n, entry in entries.items() if above_zero(entry)]
        open_ = [n for n in entries if n not in beaten]
        parts = [f"more than {words} with n = {_numbers(beaten)}"] if beaten else []
        parts += [f"not shown with n = {_numbers(open_)}"] if open_ else []
        lines.append(f"Q earns {'; '.join(parts)}." if beaten else f"Over {words}: {parts[0]}.")
    lines += list(_room(rows))
    return "\n".join(f"- {line}" for line in lines)


def _numbers(values: Sequence[int]) -> str:
    return listed([str(value) for value in values])


def _room(rows: Sequence[Row]) -> Iterator[str]:
    """How far Q goes towards the oracle, where both it and the oracle gain."""
    for row in rows:
        if not _known(row.get("minus_oracle")) or not above_zero(_entry(row, "gain")):
            continue
        room = row["gain"] - row["minus_oracle"]  # what the oracle earns more than one sample
        if row["minus_oracle_high"] < 0 and room > 0:
            more = difference(*(-row[f"minus_oracle{end}"] for end in ("", "_high", "_low")))
            yield (
                f"With n = {row['n']} the oracle earns {more} more than Q, which goes "
                f"{row['gain'] / room:.0%} of its way."
            )


def transfer(rows: Sequence[Row], published: Sequence[str]) -> str:
    """What Q of one agent's trees adds to another agent; takes ``published.transfer``.

    published: what the paper tells of it.
    """
    lines = [f"Published: {markup.literal('; '.join(published))}."] if published else []
    for row in rows:
        if row["trees"] == row["actions"]:
            continue
        gain = _entry(row, "gain")
        share = relative(row["relative"])
        of = f" ({share})" if share and above_zero(gain) else ""
        content = ""
        if _known(row.get("foreign")):
            told = _entry(row, "foreign")
            content = (
                f" Minus Q told another task's instruction: {change(told)}: {verdict_of(told)}."
            )
        lines.append(
            f"Run {markup.code(row['run'])}, {row['benchmark']}: actions of "
            f"{markup.literal(row['actions'])}, Q of the trees of {markup.literal(row['trees'])}: "
            f"{change(gain)}{of}: {verdict_of(gain)}.{content}"
        )
    if not any(row["trees"] != row["actions"] for row in rows):
        lines.append("No run here has played a second agent.")
    return "\n".join(f"- {line}" for line in lines)
