"""The stages of a run: each reads the stages before it, works in its own folder, and resumes.

data -> agent -> trees -> pairs -> Q model (and controls), RFT agent -> episodes. A notebook calls one of these and looks.
"""

from qvlib.pipeline.agents import cloning_curves, decisions, guide, sampler, train_agents
from qvlib.pipeline.episodes import arm_names, arms, play
from qvlib.pipeline.models import load_model
from qvlib.pipeline.pairs import load_pairs, load_trees, make_pairs
from qvlib.pipeline.q import fit, fit_q, load_q, train_q
from qvlib.pipeline.rft import train_rft
from qvlib.pipeline.trees import collect, search_config, search_select
from qvlib.pipeline.trials import RULES, rule_names, try_cell, try_rules
from qvlib.pipeline.world import Uses, check_disjoint, split_row, uses, world
from qvlib.runs.stage import is_complete

__all__ = [
    "RULES",
    "Uses",
    "arm_names",
    "arms",
    "check_disjoint",
    "cloning_curves",
    "collect",
    "decisions",
    "fit",
    "fit_q",
    "guide",
    "is_complete",
    "load_model",
    "load_pairs",
    "load_q",
    "load_trees",
    "make_pairs",
    "play",
    "rule_names",
    "sampler",
    "search_config",
    "search_select",
    "split_row",
    "train_agents",
    "train_q",
    "train_rft",
    "try_cell",
    "try_rules",
    "uses",
    "world",
]
