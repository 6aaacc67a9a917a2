"""Published tables beside ours: agents, axes of ablation, transfer, and what differs.

The published figures are data with their sources (``figures.yml``).
"""

from qvlib.report.published.agents import (
    Finished,
    absent,
    agents,
    compared,
    display_agents,
    finished,
)
from qvlib.report.published.axes import axes, by_candidates, display_axes, display_candidates
from qvlib.report.published.differences import differences, listed
from qvlib.report.published.figures import SOURCES, figures, source, told
from qvlib.report.published.relatives import accuracy, display_relatives, relatives
from qvlib.report.published.transfer import display_transfer, made, transfer

__all__ = [
    "SOURCES",
    "Finished",
    "absent",
    "accuracy",
    "agents",
    "axes",
    "by_candidates",
    "compared",
    "differences",
    "display_agents",
    "display_axes",
    "display_candidates",
    "display_relatives",
    "display_transfer",
    "figures",
    "finished",
    "listed",
    "made",
    "relatives",
    "source",
    "told",
    "transfer",
]
