"""From finished episodes to what is claimed: means, paired gains, intervals, costs.

Every number of the report is made here, from the stages' own files. Rewards are terminal rewards in
[0, 1]; intervals are 95 %, over the groups (products, games) of the test tasks and over chains.
"""

from qvlib.report.numbers.by_part import parts, parts_table
from qvlib.report.numbers.comparison import write_comparison
from qvlib.report.numbers.costs import cost
from qvlib.report.numbers.episodes import (
    by_task,
    load_by_task,
    load_episodes,
    refused_share,
    shuffle_means,
    test_episodes,
    unparsable_share,
)
from qvlib.report.numbers.gains import (
    arm_rows,
    arm_table,
    failures,
    gain_rows,
    gain_table,
    gap_closed,
    seed_table,
)
from qvlib.report.numbers.kinds import accuracy_by_kind, by_kind, kind_table, pair_kind
from qvlib.report.numbers.metrics_json import metrics, write_metrics
from qvlib.report.numbers.origins import split_table, stage_table, uses_table
from qvlib.report.numbers.pairs import held_out, preferences, sources

__all__ = [
    "accuracy_by_kind",
    "arm_rows",
    "arm_table",
    "by_kind",
    "by_task",
    "cost",
    "failures",
    "gain_rows",
    "gain_table",
    "gap_closed",
    "held_out",
    "kind_table",
    "load_by_task",
    "load_episodes",
    "metrics",
    "pair_kind",
    "parts",
    "parts_table",
    "preferences",
    "refused_share",
    "seed_table",
    "shuffle_means",
    "sources",
    "split_table",
    "stage_table",
    "test_episodes",
    "unparsable_share",
    "uses_table",
    "write_comparison",
    "write_metrics",
]
