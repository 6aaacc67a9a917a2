"""What the searches gave to learn from, and how well the Q models learnt it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from qvlib import pipeline
from qvlib.core.preferences import compared
from qvlib.pipeline.params import Params
from qvlib.runs.stage import read_stage


def preferences(params: Params) -> dict[str, Any]:
    """Trees, states compared, ties and pairs of all chains; accuracy over all held-out pairs.

    Each pair is ordered by its own chain's Q model.
    """
    chains = params.each_seed()
    facts = [read_stage(chain, "q_model").facts for chain in chains]
    held = sum(f["held_out_pairs"] for f in facts)
    right = sum(f["held_out_pairs"] * f["held_out_accuracy"] for f in facts if f["held_out_pairs"])
    depths = Counter(pair.depth for chain in chains for pair in pipeline.load_pairs(chain))
    left_out = {
        key: sum(f.get(key, 0) for f in facts)
        for key in ("dropped_pairs", "dropped_held_out_pairs")
    }
    return {
        **sources(params),
        **(left_out if any(left_out.values()) else {}),
        "pairs": sum(f["pairs"] for f in facts),
        "pairs_by_depth": {str(d): depths[d] for d in sorted(depths)},
        "held_out_pairs": held,
        "held_out_accuracy": right / held if held else None,
        "control_held_out_accuracy": [
            c["held_out_accuracy"]
            for chain in chains
            for c in read_stage(chain, "control").facts["controls"]
        ],
    }


def sources(params: Params) -> dict[str, int]:
    """Counts of all chains.

    Searched ``trees``, ``tasks`` that give pairs, ``states`` in which actions are compared, and
    ``ties`` of those.
    """
    total = Counter(trees=0, tasks=0, states=0, ties=0)
    for chain in params.each_seed():
        counts = read_stage(chain, "pairs").facts | compared(
            trees(chain), chain.pairs.min_margin, chain.pairs.min_visits
        )
        total.update({key: counts[key] for key in total})
    return dict(total)


def trees(chain: Params) -> list[dict[str, Any]]:
    """The trees of a chain, of all rounds."""
    return [
        tree
        for made_with in chain.each_round()
        for tree in read_stage(made_with, "trees").records("trees")
    ]
