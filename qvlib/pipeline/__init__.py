"""The stages of a run: each reads the stages before it, works in its own folder, and resumes.

data -> agent -> trees -> pairs -> Q model (and controls), RFT agent -> episodes. A notebook calls one of these and looks.
"""

from ..runs import is_complete
from .agents import cloning_curves, decisions, guide, sampler, train_agents
from .episodes import arm_names, arms, play
from .models import load_model
from .pairs import load_pairs, load_trees, make_pairs
from .q import encode, fit, fit_q, load_q, train_q
from .rft import train_rft
from .trees import collect, search_config
from .trials import RULES, rule_names, try_cell, try_rules
from .world import Uses, check_disjoint, split_row, uses, world

__all__ = [
    "RULES", "Uses", "arm_names", "arms", "check_disjoint", "cloning_curves", "collect", "decisions", "encode", "fit", "fit_q", "guide",
    "is_complete", "load_model", "load_pairs", "load_q", "load_trees", "make_pairs", "play", "rule_names", "sampler",
    "search_config", "split_row", "train_agents", "train_q", "train_rft", "try_cell", "try_rules", "uses", "world",
]
