"""What the searches gave to learn from, and how well the Q models learnt it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from qvlib import pipeline
from qvlib.core.preferences import compared
from qvlib.pipeline.pairs import each_tree
from qvlib.pipeline.params import Params
from qvlib.report.intervals import share_interval
from qvlib.runs.stage import read_stage


def preferences(params: Params) -> dict[str, Any]:
    """Trees, states compared, ties and pairs of all chains; accuracy over all held-out pairs.

    Each pair is ordered by its own chain's Q model.
    """
    chains = params.each_seed()
    facts = [read_stage(chain, "q_model").facts for chain in chains]
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
        **held_out(chains),
    }


def held_out(chains: Sequence[Params]) -> dict[str, Any]:
    """How the Q models of chains order the pairs held out of their training.

    ``held_out_pairs``, ``held_out_accuracy``, those of each control, and where the estimator tells
    them by task, ``held_out_tasks`` and ``held_out_ci95``: 95 % over tasks (and chains).
    """
    facts = [read_stage(chain, "q_model").facts for chain in chains]
    held = sum(f["held_out_pairs"] for f in facts)
    told = held and all(f["held_out_accuracy"] is not None for f in facts if f["held_out_pairs"])
    right = sum(f["held_out_pairs"] * (f["held_out_accuracy"] or 0) for f in facts)
    return {
        "held_out_pairs": held,
        "held_out_accuracy": right / held if told else None,
        **_over_tasks([f.get("held_out_by_task") for f in facts]),
        "control_held_out_accuracy": [
            c["held_out_accuracy"]
            for chain in chains
            for c in read_stage(chain, "control").facts["controls"]
        ],
    }


def _over_tasks(counts: Sequence[Mapping[str, Sequence[float]] | None]) -> dict[str, Any]:
    """The interval of an accuracy; counts: of each chain, task -> (ordered rightly, pairs)."""
    rows = [
        (right / pairs, task, chain)
        for chain, by_task in enumerate(counts)
        for task, (right, pairs) in (by_task or {}).items()
        for _ in range(int(pairs))
    ]
    if not rows or None in counts:
        return {}
    values, tasks, of = zip(*rows, strict=True)
    return {
        "held_out_tasks": len(set(tasks)),
        "held_out_ci95": list(share_interval(values, tasks, of)[1:]),
    }


def sources(params: Params) -> dict[str, int]:
    """Counts of all chains.

    Searched ``trees``, ``tasks`` that give pairs, ``states`` in which actions are compared, and
    ``ties`` of those.
    """
    total = Counter(trees=0, tasks=0, states=0, ties=0)
    for chain in params.each_seed():
        counts = read_stage(chain, "pairs").facts | compared(
            each_tree(chain), chain.pairs.min_margin, chain.pairs.min_visits
        )
        total.update({key: counts[key] for key in total})
    return dict(total)
