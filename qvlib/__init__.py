"""Step-level Q-value models for language-model agents (arXiv 2409.09345).

Search a task with MCTS and keep each step's Q value, turn siblings of the tree into preference
pairs, fit them with step-level DPO, execute the sampled action of the highest Q:

>>> import qvlib as qv
>>> shop = qv.make_environment("webshop", catalogue_products=200)
>>> lm = qv.clone_agent(shop, demonstrations=30)
>>> agent = qv.Filtered(lm.agent(temperature=1.0, top_p=0.9), shop)
>>> searches = (qv.search(shop, task, qv.SearchConfig(iterations=6), seed=0)
...             for task in shop.tasks("train")[-4:])
>>> trees = [qv.tree_record(tree) for tree in qv.lockstep(searches, agent, width=4)]
>>> pairs = qv.build_pairs(trees)
>>> q_model = qv.fit(shop, lm, pairs)
>>> best = qv.Reranked(agent, q_model, n=5)
>>> record = next(qv.lockstep([qv.episode(shop, shop.tasks("test")[0], seed=0)], best, width=1))
>>> 0 <= record["reward"] <= 1
True

Everything larger is a parameter file: ``qvlib run params/quick.yml``, or in a notebook
``qvlib.pipeline.until("episodes", params)``.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    # name: the module it lives in; imported when it is first asked for, so that importing one room
    # of the house loads no other
    "Environment": "qvlib.core.types",
    "Filtered": "qvlib.core.filtering",
    "Reranked": "qvlib.core.reranker",
    "SearchConfig": "qvlib.core.mcts",
    "State": "qvlib.core.types",
    "Task": "qvlib.core.types",
    "build_pairs": "qvlib.core.preferences",
    "clone_agent": "qvlib.pipeline.by_hand",
    "dpo_loss": "qvlib.core.dpo",
    "episode": "qvlib.core.episodes",
    "fit": "qvlib.pipeline.by_hand",
    "lockstep": "qvlib.core.lockstep",
    "make_environment": "qvlib.pipeline.by_hand",
    "search": "qvlib.core.mcts",
    "tree_record": "qvlib.core.trees",
}

__all__ = [*sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qvlib' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
