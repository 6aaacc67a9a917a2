"""The report's pictures, from tables to matplotlib figures.

What they compare is told apart by shape and shade, not by colour alone.
"""

from qvlib.report.figures.anytime import reward_by_steps
from qvlib.report.figures.arms import gains, reward_by_arm
from qvlib.report.figures.budget import reward_by_spending
from qvlib.report.figures.calibration import calibrations
from qvlib.report.figures.choices import grid_changes, grid_curves, lines, rule_gains
from qvlib.report.figures.comparison import gain_by_cost, ranking
from qvlib.report.figures.examples import pair_loss, root_value
from qvlib.report.figures.kinds import accuracy_by_kind
from qvlib.report.figures.kit import BLUE, DARK, DPI, GREY, ORANGE, label, panels, png, save
from qvlib.report.figures.published import candidates
from qvlib.report.figures.reads import reads
from qvlib.report.figures.regression import effects
from qvlib.report.figures.search import nodes_by_depth, pairs_by_depth
from qvlib.report.figures.training import calibration, cloning, training

__all__ = [
    "BLUE",
    "DARK",
    "DPI",
    "GREY",
    "ORANGE",
    "accuracy_by_kind",
    "calibration",
    "calibrations",
    "candidates",
    "cloning",
    "effects",
    "gain_by_cost",
    "gains",
    "grid_changes",
    "grid_curves",
    "label",
    "lines",
    "nodes_by_depth",
    "pair_loss",
    "pairs_by_depth",
    "panels",
    "png",
    "ranking",
    "reads",
    "reward_by_arm",
    "reward_by_spending",
    "reward_by_steps",
    "root_value",
    "rule_gains",
    "save",
    "training",
]
