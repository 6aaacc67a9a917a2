"""The stages of a run: each reads the stages before it, works in its own folder, and resumes.

data -> agent -> trees -> pairs -> Q model (and controls), RFT agent -> episodes, a folder an arm ->
scored pairs of the test tasks.
A notebook calls ``until`` and looks.
"""

from qvlib.pipeline.agents import cloning_curves, train_agents
from qvlib.pipeline.context import Context, context_of, guide
from qvlib.pipeline.data import load_environment, prepare_data, split_row
from qvlib.pipeline.episodes import play
from qvlib.pipeline.pairs import load_pairs, load_trees, make_pairs
from qvlib.pipeline.params import Params, load, make
from qvlib.pipeline.q import train_q
from qvlib.pipeline.rft import train_rft
from qvlib.pipeline.scored import score_pairs
from qvlib.pipeline.trees import collect
from qvlib.pipeline.trials import RULES, rule_names, rules_of, try_cell, try_rules
from qvlib.pipeline.until import Run, until

__all__ = [
    "RULES",
    "Context",
    "Params",
    "Run",
    "cloning_curves",
    "collect",
    "context_of",
    "guide",
    "load",
    "load_environment",
    "load_pairs",
    "load_trees",
    "make",
    "make_pairs",
    "play",
    "prepare_data",
    "rule_names",
    "rules_of",
    "score_pairs",
    "split_row",
    "train_agents",
    "train_q",
    "train_rft",
    "try_cell",
    "try_rules",
    "until",
]
