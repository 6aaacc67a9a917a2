"""What scoring rules and the cells of a grid allow to say; on dev tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qvlib.base import markup
from qvlib.report.sentences.conditions import few_groups


def rule_verdict(row: Mapping[str, Any]) -> str:
    """What a scoring rule is, by its gain and its control's: reranking gains by the labels alone.

    A rule whose Q model of shuffled labels gains is a policy of its own, and no reranking.
    """
    if row["control_low"] > 0:
        return "Q as a policy"
    return "reranking" if row["q_low"] > 0 else "no gain shown"


def rules(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table of scoring rules allows to say."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(row["verdict"], []).append(f"`{row['rule']}`")
    meant = {
        "reranking": "gain, and of their control no gain is shown",
        "Q as a policy": "gain with shuffled labels, so they are not counted as reranking",
        "no gain shown": "their intervals reach 0",
    }
    lines = [f"**{kind}**: {', '.join(names)} ({meant[kind]})." for kind, names in kinds.items()]
    lines += [few_groups(int(row["groups"]), "groups", "rule_tasks") for row in rows[:1]]
    return "\n".join(f"- {line}" for line in lines if line)


def grid(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which cells of a grid differ from the run, most first, and how many would by chance."""
    tried = [row for row in rows[1:] if not math.isnan(row["change"])]
    apart = {
        sign: [
            markup.literal(f"{row['axis']}: {row['choice']} ({row['change']:+.3f})")
            for row in sorted(tried, key=lambda row: -abs(row["change"]))
            if row[bound] * sign > 0
        ]
        for sign, bound in ((1, "change_low"), (-1, "change_high"))
    }
    lines = [
        f"**Better than the run**: {'; '.join(apart[1]) or 'none'}.",
        f"**Worse than the run**: {'; '.join(apart[-1]) or 'none'}.",
        f"Of {len(tried)} comparisons at 95 %, about {0.05 * len(tried):.0f} would be significant "
        "by chance alone.",
    ]
    failed = [
        markup.literal(f"{row['axis']}: {row['choice']} ({row['failed']})")
        for row in rows
        if row["failed"]
    ]
    if failed:
        lines.append(f"**Failed**: {'; '.join(failed)}.")
    if tried and tried[0]["chains"] == 1:  # of several the interval asks how many groups there are
        lines.append(few_groups(int(tried[0]["groups"]), "groups", "trial_tasks"))
    return "\n".join(f"- {line}" for line in lines if line)
