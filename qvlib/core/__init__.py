"""The method, by itself: search, preference pairs, the loss, reranking, episodes.

Data flow: an ``Agent`` proposes actions; ``search`` grows a ``Tree`` of a ``Task`` in an
``Environment``; ``build_pairs`` makes preference pairs of its sibling actions; ``dpo_loss`` tunes
a Q model on them; ``Reranked`` executes the best of n actions by it; ``episode`` plays, and
``compare`` tells what that is worth. ``lockstep`` runs many searches or episodes in full batches.

Nothing here loads a model library, reads parameters, or touches the disk.
"""

from qvlib.core.dpo import dpo_loss
from qvlib.core.episodes import best_episode, demonstrate, episode, replay, visited
from qvlib.core.filtering import Filtered
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import Evaluation, SearchConfig, Tree, rollout, search, uct_select
from qvlib.core.preferences import Pair, build_pairs, hold_out, shuffle_winners
from qvlib.core.reranker import Reranked
from qvlib.core.statistics import bootstrap_mean, compare
from qvlib.core.trees import tree_record
from qvlib.core.types import (
    Agent,
    Cost,
    Environment,
    Job,
    Proposal,
    QModel,
    Request,
    State,
    Step,
    Task,
)

__all__ = [
    "Agent",
    "Cost",
    "Environment",
    "Evaluation",
    "Filtered",
    "Job",
    "Pair",
    "Proposal",
    "QModel",
    "Request",
    "Reranked",
    "SearchConfig",
    "State",
    "Step",
    "Task",
    "Tree",
    "best_episode",
    "bootstrap_mean",
    "build_pairs",
    "compare",
    "demonstrate",
    "dpo_loss",
    "episode",
    "hold_out",
    "lockstep",
    "replay",
    "rollout",
    "search",
    "shuffle_winners",
    "tree_record",
    "uct_select",
    "visited",
]
