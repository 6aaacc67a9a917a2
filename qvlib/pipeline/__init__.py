"""The stages of a run: each reads the stages before it, works in its own folder, and resumes.

data -> agent -> trees -> pairs -> Q model (and controls) -> episodes. A notebook calls one of these and looks.
"""

from ..runs import is_complete
from .agents import cloning_curves, decisions, load_model, sampler, train_agents
from .episodes import arm_names, arms, play
from .q import encode, load_q, train_q
from .trees import collect, load_pairs, make_pairs, search_config
from .world import Uses, check_disjoint, split_row, uses, world

__all__ = [
    "Uses", "arm_names", "arms", "check_disjoint", "cloning_curves", "collect", "decisions", "encode", "is_complete",
    "load_model", "load_pairs", "load_q", "make_pairs", "play", "sampler", "search_config", "split_row", "train_agents", "train_q", "uses",
    "world",
]
