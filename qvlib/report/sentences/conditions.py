"""Under which conditions numbers hold: chains, groups, the filter, where the agent comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qvlib.base import markup

if TYPE_CHECKING:
    from qvlib.pipeline.params import Params

FEW_GROUPS = 15  # with fewer, percentiles of a bootstrap are too close together


def limits(metrics: Mapping[str, Any]) -> str:
    """What the intervals of a run cover, and whether its groups of tasks are too few for them."""
    seeds, groups = metrics.get("seeds") or [0], metrics.get("groups", "products")
    if len(seeds) == 1:
        covered = (
            "One seed of training: the intervals cover the choice of tasks, "
            "not the luck of training."
        )
    elif metrics.get("intervals") == "t":
        covered = (
            f"{len(seeds)} seeds of training: t intervals over {groups} and seeds, as wide as so "
            "few seeds ask."
        )
    else:
        covered = (
            f"{len(seeds)} seeds of training: the intervals are percentiles of a bootstrap over "
            f"{groups} and seeds, which so few seeds make too narrow."
        )
    few = ""
    if "splits" in metrics and metrics.get("intervals") != "t":  # t asks how many there are
        few = few_groups(metrics["splits"][-1]["groups"], groups)
    return f"{covered} {few}" if few else covered


def few_groups(count: int, groups: str, parameter: str = "test_tasks") -> str:
    """A warning where intervals rest on too few groups of tasks; else empty."""
    if count >= FEW_GROUPS:
        return ""
    return (
        f"With {count} {groups} the intervals are too narrow: they want {FEW_GROUPS} and more; "
        f"raise `{parameter}`."
    )


def filtering(filtered: bool | None) -> str:
    """Whether arms draw again what would be refused; empty where a run does not tell."""
    if filtered is None:
        return ""
    if filtered:
        return (
            "All arms that draw from a model draw through the same filter of refused and "
            "no-effect actions."
        )
    return "No arm has a filter: a refused action costs a step, as others do."


def refused(metrics: Mapping[str, Any]) -> str:
    """What the filter of refused actions did to one sample."""
    share = metrics["refused_share"]
    filtered = filtering(metrics.get("filter_actions"))
    if metrics.get("filter_actions", True):
        dropped = (
            f"{share:.1%} of the draws of one sample were dropped as refused or without effect."
        )
        return f"{dropped} {filtered}".strip()
    return filtered


def chain(params: Params) -> str:
    """Which of a run's chains a page is about that shows one."""
    seeds = [each.run.seed for each in params.each_seed()]
    if len(seeds) == 1:
        return f"What is shown is the run's one chain, seed {seeds[0]}."
    return (
        f"What is shown is the first of the run's {len(seeds)} chains, seed {seeds[0]} of "
        f"{', '.join(map(str, seeds))}; `05_evaluate` and `07_report` pool them."
    )


def no_dpo(estimator: str) -> str:
    """In the place of what only DPO has."""
    return f"Not of this run: its estimator, `{estimator}`, minimises no DPO loss."


def agent(facts: Mapping[str, Any], loss: float | None) -> str:
    """Where the agent comes from; ``loss`` is cloning's last, nats a token."""
    if "model" in facts:
        given = markup.code(facts["model"])
        return f"The agent is the model {given} as it was given; nothing was cloned."
    how = f"{markup.code(facts['base'])}, fine-tuned on" if "base" in facts else "Cloned from"
    dropped = (
        f" {facts['too_long']} episodes were too long for the model and left out."
        if facts.get("too_long")
        else ""
    )
    return (
        f"{how} {facts['demonstrations']:,} episodes ({facts['decisions']:,} decisions) of a "
        f"scripted agent whose own mean reward is {facts['demonstrator_reward']:.3f}; loss at the "
        f"end {loss:.3f} nats a token.{dropped}"
    )


def sources(preferences: Mapping[str, Any]) -> str:
    """How many searched tasks tell actions apart."""
    trees, tasks, states = (preferences[key] for key in ("trees", "tasks", "states"))
    share = f" ({tasks / trees:.0%})" if trees else ""
    tied = f" ({preferences['ties'] / states:.0%})" if states else ""
    return (
        f"{tasks} of {trees} searched tasks{share} give pairs. Of the {states:,} states in which "
        f"actions are compared, {preferences['ties']:,}{tied} tie: the values of their actions lie "
        "less than `min_margin` apart."
    )


def size(facts: Mapping[str, Any], prompt: Sequence[int]) -> str:
    """How large a prompt and the agent's model are; a server tells neither."""
    if "parameters" not in facts:
        return f"{markup.code(facts['model'])} counts its tokens and parameters itself."
    return f"{len(prompt)} tokens; the model has {facts['parameters']:,} parameters."
