"""Sentences about results, computed from ``metrics.json``.

So no prose holds a number typed by hand, and no verdict is printed that its numbers do not test.
"""

from qvlib.report.sentences.calibration import calibrated
from qvlib.report.sentences.claims import (
    claim,
    diagnosis,
    least_rank,
    null,
    one_line,
    reads,
    scored,
    verdict,
)
from qvlib.report.sentences.comparison import compared, compared_briefly
from qvlib.report.sentences.conditions import (
    FEW_GROUPS,
    agent,
    chain,
    few_groups,
    filtering,
    limits,
    no_dpo,
    refused,
    size,
    sources,
)
from qvlib.report.sentences.gains import (
    NOT_SIGNIFICANT,
    above_zero,
    gain,
    holds_zero,
    relative_gain,
    success,
)
from qvlib.report.sentences.orders import accuracy, agreement
from qvlib.report.sentences.pages import after, by_hand, excerpt, prompted, quoted
from qvlib.report.sentences.trials import grid, rule_verdict, rules

__all__ = [
    "FEW_GROUPS",
    "NOT_SIGNIFICANT",
    "above_zero",
    "accuracy",
    "after",
    "agent",
    "agreement",
    "by_hand",
    "calibrated",
    "chain",
    "claim",
    "compared",
    "compared_briefly",
    "diagnosis",
    "excerpt",
    "few_groups",
    "filtering",
    "gain",
    "grid",
    "holds_zero",
    "least_rank",
    "limits",
    "no_dpo",
    "null",
    "one_line",
    "prompted",
    "quoted",
    "reads",
    "refused",
    "relative_gain",
    "rule_verdict",
    "rules",
    "scored",
    "size",
    "sources",
    "success",
    "verdict",
]
