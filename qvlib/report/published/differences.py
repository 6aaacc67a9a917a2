"""What differs between a run and the published settings, as a numbered list that is computed.

The published settings are those of ``params/paper/<world>-phi3-mini.yml``, where each value has its
source. Compared are the parameters that decide an outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qvlib.base import markup
from qvlib.base.paths import resolve
from qvlib.pipeline.params import Params, load
from qvlib.report.published.transfer import made

FILES = "params/paper/{}-phi3-mini.yml"
TOPICS = {
    "models": "agent, q_base, dtype",
    "data": "data_dir, goals, max_steps, timeout_value",
    "budget": "train_tasks, iterations, expand_n, rounds, test_tasks, seeds",
    "prompts": "description_words, thoughts, examples, max_action_tokens",
    "actions": "filter_actions, listed_actions, temperature, top_p",
    "search": "discount, exploration, uct, expand_at, unvisited_value, ended_leaves, "
    "refused_actions, wrong_end_value, final_backup, stop_at_success, invalid_value",
    "pairs": "pairs, min_margin, min_visits, heldout_share",
    "training": "estimator, trainer, lora_rank, beta, log_prob, dpo_lr, dpo_schedule, dpo_epochs, "
    "dpo_batch",
    "scoring": "score_rule, rerank_temperature, prior_weight",
}
"""Topic -> the parameters that belong to it, in the order they are told."""


def published(params: Params) -> Params | None:
    """The paper's settings on a run's world; None where the paper has none."""
    file = FILES.format(params.world.environment)
    return load(file) if resolve(file).is_file() else None


def differences(params: Params) -> dict[str, list[tuple[str, Any, Any]]]:
    """Topic -> (parameter, ours, published) of what differs; empty topics are left out."""
    paper = published(params)
    if paper is None:
        return {}
    ours, theirs = ({**each.flat(), "agent": made(each.flat())} for each in (params, paper))
    return {
        topic: differing
        for topic, names in TOPICS.items()
        if (differing := list(_differing(names.split(", "), ours, theirs)))
    }


def _differing(
    names: list[str], ours: dict[str, Any], theirs: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in names:
        if name in ours and ours[name] != theirs.get(name):
            yield name, ours[name], theirs.get(name)


def listed(params: Params) -> str:
    """``differences`` as a numbered list in Markdown, ours before the paper's."""
    if published(params) is None:
        return "The paper has no settings for this world."
    found = differences(params)
    lines = [
        f"{number}. **{topic}**: "
        + "; ".join(
            f"`{name}` {_short(ours)}, published {_short(theirs)}" for name, ours, theirs in told
        )
        for number, (topic, told) in enumerate(found.items(), start=1)
    ]
    last = len(lines) + 1
    return "\n".join(
        [
            *lines,
            f"{last}. **intervals**: no published figure was read with one; ours are of 95 %",
        ]
    )


def _short(value: Any) -> str:
    if value in ("", None):
        return "none"  # of data: those that are embedded
    return f"{value:g}" if isinstance(value, float) else markup.literal(str(value))
