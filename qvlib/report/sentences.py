"""Sentences about results, computed from ``metrics.json``.

So no prose holds a number typed by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qvlib.base import markup
from qvlib.pipeline.cards import dropped_pairs
from qvlib.report.formats import difference, interval, relative

if TYPE_CHECKING:
    from qvlib.core.types import Task
    from qvlib.environments import Tour
    from qvlib.pipeline.params import Params

NOT_SIGNIFICANT = "not significant (95 % interval contains 0)"
FEW_GROUPS = 15  # with fewer, percentiles of a bootstrap are too close together


def holds_zero(entry: Mapping[str, Any]) -> bool:
    """Whether the interval of a gain holds zero, sums of floats being what they are."""
    low, high = entry["ci95"]
    return low <= 1e-9 and high >= -1e-9


def _above_zero(entry: Mapping[str, Any]) -> bool:
    return entry["mean"] > 0 and not holds_zero(entry)


def gain(name: str, entry: Mapping[str, Any], over: str) -> str:
    """What a paired gain and its interval allow to say."""
    share = relative_gain(entry)
    if holds_zero(entry):
        verdict = NOT_SIGNIFICANT
    else:
        verdict = f"significantly {'above' if entry['ci95'][0] > 0 else 'below'} 0"
    change = difference(entry["mean"], *entry["ci95"])
    share = f", {share}" if share else ""
    return f"**{name}** over {over}: {change}{share}: {verdict}."


def relative_gain(entry: Mapping[str, Any]) -> str:
    """``+37% [+20%, +54%]``; older runs have no such interval, nor has a baseline near nothing."""
    bounds = entry.get("relative_ci95")
    share = relative(entry["relative"])
    return f"{share} {interval(*bounds, '+.0%')}" if share and bounds else share


def verdict(metrics: Mapping[str, Any]) -> str:
    """The result as a Markdown list: the claim, its control, its bound."""
    gains, arms = metrics["gains"], metrics["arms"]
    lines = [
        gain("Q-reranked, n = 5", gains["q_n5"], "one sample"),
        gain("Q-reranked, n = 10", gains["q_n10"], "one sample"),
        gain("Q-reranked, n = 5", metrics["gains_over_greedy"]["q_n5"], "greedy"),
        gain("Q-reranked, n = 10", metrics["gains_over_greedy"]["q_n10"], "greedy"),
        *(
            [gain("the tuned model as the policy", gains["tuned_policy"], "one sample")]
            if "tuned_policy" in gains
            else []
        ),
        *(
            [
                gain(
                    "the agent fine-tuned on its trees' best episodes (RFT)",
                    gains["rft"],
                    "one sample",
                )
            ]
            if "rft" in gains
            else []
        ),
        *(
            gain(f"control with shuffled winners, n = {n}", gains[f"control_q_n{n}"], "one sample")
            + _control(metrics, n)
            for n in (5, 10)
        ),
    ]
    if "best_of_n" in gains:
        lines.append(
            gain(
                "head-room: the best of several whole episodes, as the environment judges",
                gains["best_of_n"],
                "one sample",
            )
        )
    if "other_agent_gain" in metrics:
        lines.append(
            gain(
                "another agent, reranked by the same Q model",
                metrics["other_agent_gain"],
                "its own sample",
            )
        )
    if metrics["gap_closed"] is not None:
        lines.append(_gap(metrics))
    one, five, ten = (success(arms[arm]) for arm in ("sample", "q_n5", "q_n10"))
    lines.append(
        f"**Success** (reward 1): {one} of tasks with one sample, {five} reranked with n = 5, "
        f"{ten} with n = 10."
    )
    if len(metrics.get("by_seed", ())) > 1:
        each = "; ".join(
            f"seed {row['seed']} "
            + " and ".join(relative(row[f"{arm} relative"]) or "-" for arm in ("q_n5", "q_n10"))
            for row in metrics["by_seed"]
        )
        lines.append(
            f"**Seed by seed**, n = 5 and n = 10 against the same chain's sample, each one "
            f"training and without an interval: {each}."
        )
    return "\n".join(f"- {line}" for line in lines)


def success(arm: Mapping[str, Any]) -> str:
    """A share of successes with its interval.

    Older runs have a bootstrap's, which is empty where nothing, or all, succeeded: then none is
    given.
    """
    low, high = arm["success_ci95"] if "success_ci95" in arm else (None, None)
    bounds = "" if low is None or low == high else f" {interval(low, high, '.1%')}"
    return f"{arm['success_rate']:.1%}{bounds}"


def _gap(metrics: Mapping[str, Any]) -> str:
    """How far reranking goes towards search.

    A share of a difference that may be none says nothing, nor does one of a gain that may be none:
    those are not given.
    """
    arms, gains = metrics["arms"], metrics["gains"]
    way = (
        f"of the way from one sample to search with the environment "
        f"({arms['sample']['reward_mean']:.3f} to {arms['search']['reward_mean']:.3f})"
    )
    if not _above_zero(gains["search"]):
        return (
            f"**Gap closed**: not given as a share {way}, since a gain of search itself is not "
            "shown."
        )
    shares = [
        f"{metrics[key]:.0%} with n = {n}"
        if _above_zero(gains[f"q_n{n}"])
        else f"none shown with n = {n}"
        for n, key in ((5, "gap_closed"), (10, "gap_closed_n10"))
        if key in metrics
    ]
    return f"**Gap closed**: {' and '.join(shares)} {way}."


def claim(metrics: Mapping[str, Any]) -> str:
    """One sentence: whether the method's claim holds in this run."""
    better = tuple(_above_zero(metrics[over]["q_n5"]) for over in ("gains", "gains_over_greedy"))
    over_sample, over_greedy = (
        _above_zero(metrics[over]["control_q_n5"]) for over in ("gains", "gains_over_greedy")
    )
    tasks = metrics["arms"]["q_n5"]["tasks"]
    what = {
        (True, True): "is better than one sample and than greedy decoding",
        (True, False): "is better than one sample; than greedy decoding it is not shown to be",
        (False, True): "is better than greedy decoding; than one sample it is not shown to be",
        (False, False): "is not shown to be better than one sample or greedy decoding",
    }[better]
    control = (
        "the control with shuffled winners gains over one sample too, so the labels have not all "
        "the merit"
        if over_sample
        else "of the control with shuffled winners no gain over one sample is shown"
    )
    if (
        better[1] and over_greedy
    ):  # then sampling itself is better there, and Q has not all the merit
        mean = metrics["gains_over_greedy"]["control_q_n5"]["mean"]
        control += f"; over greedy decoding the control gains {mean:+.3f}, which is not Q's doing"
    return (
        f"On {tasks} held-out tasks, executing the action with the highest Q of five {what}; "
        f"{control}."
    )


def accuracy(preferences: Mapping[str, Any]) -> str:
    """Held-out preference accuracy against the control's, and what was dropped from both."""
    right, pairs = preferences["held_out_accuracy"], preferences["held_out_pairs"]
    left_out = dropped_pairs(preferences)
    if right is None:
        said = (
            f"Of the {pairs} held-out pairs the estimator tells no accuracy."
            if pairs
            else "No pairs are held out, so nothing can be said about new tasks; "
            "raise `heldout_share` or `train_tasks`."
        )
    else:
        shuffled = ", ".join(
            f"{c:.1%}" for c in preferences["control_held_out_accuracy"] if c is not None
        )
        share, verdict = _of_held_out(preferences)
        said = (
            f"Of {pairs} held-out pairs the Q model orders {share} rightly, {verdict}; "
            f"trained on shuffled winners: {shuffled}."
        )
    return f"{said} {left_out}" if left_out else said


def diagnosis(metrics: Mapping[str, Any]) -> str:
    """What bounds the gain.

    How deep the pairs are, what Q learnt of them, and how much the environment would find.
    """
    preferences, gains = metrics["preferences"], metrics["gains"]
    depths = {int(depth): count for depth, count in preferences["pairs_by_depth"].items()}
    total = sum(depths.values())
    shallow = sum(count for depth, count in depths.items() if depth < 2)
    lines = []
    if total:
        lines.append(
            f"**Pairs**: {total} in all, {shallow / total:.0%} of them about the first two actions "
            f"of an episode, the deepest after {max(depths)} actions."
        )
    right, held = preferences["held_out_accuracy"], preferences["held_out_pairs"]
    if right is not None:
        share, verdict = _of_held_out(preferences)
        lines.append(f"**Order**: {share} of {held} held-out pairs are ordered rightly, {verdict}.")
    rooms = [
        f"{what} {_change(gains[arm])}"
        for arm, what in (
            ("best_of_n", "the best of several whole episodes"),
            ("search", "a search"),
        )
        if arm in gains
    ]
    lines.append(
        f"**Room**: against one sample, where the environment itself judges, "
        f"{' and '.join(rooms)}; by Q {_change(gains['q_n5'])} with n = 5."
    )
    return "\n".join(f"- {line}" for line in lines)


def agreement(siblings: Mapping[str, float]) -> str:
    """How often Q orders siblings as the search did; takes ``siblings.agreement``."""
    pairs = int(siblings["pairs"])
    if not pairs:
        return "No siblings are held out in a run this small."
    share, verdict = _against_chance(
        siblings["agreement"], (siblings["low"], siblings["high"]), int(siblings["tasks"])
    )
    return (
        f"Of {pairs} pairs of siblings with different values Q orders {share} as the search did, "
        f"{verdict}."
    )


def _change(entry: Mapping[str, Any]) -> str:
    return difference(entry["mean"], *entry["ci95"])


def _of_held_out(preferences: Mapping[str, Any]) -> tuple[str, str]:
    """``_against_chance`` of the held-out pairs; no verdict where they are not told by task."""
    right = preferences["held_out_accuracy"]
    if "held_out_ci95" not in preferences:
        return f"{right:.1%}", "of how many tasks is not told, so no interval is given"
    return _against_chance(right, preferences["held_out_ci95"], preferences["held_out_tasks"])


def _against_chance(share: float, bounds: Sequence[float], tasks: int) -> tuple[str, str]:
    """A share with its interval over tasks, and whether that contains one half."""
    low, high = bounds
    if low > 0.5:
        verdict = "better than chance"
    elif high < 0.5:
        verdict = "worse than chance"
    else:
        verdict = "not distinguishable from chance (95 % interval contains 50 %)"
    of = f"{tasks} task{'s' * (tasks != 1)}"
    return f"{share:.1%} {interval(low, high, '.1%')}", f"{verdict}, the interval over {of}"


def rule_verdict(row: Mapping[str, Any]) -> str:
    """What a scoring rule is, by its gain and its control's: reranking gains by the labels alone.

    A rule whose Q model of shuffled winners gains is a policy of its own, and no reranking.
    """
    if row["control_low"] > 0:
        return "Q as a policy"
    return "reranking" if row["q_low"] > 0 else "no gain shown"


def rules(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table of scoring rules allows to say."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(row["verdict"], []).append(f"`{row['rule']}`")
    meant = {
        "reranking": "gain, and of their control no gain is shown",
        "Q as a policy": "gain with shuffled winners, so they are not counted as reranking",
        "no gain shown": "their intervals reach 0",
    }
    lines = [f"**{kind}**: {', '.join(names)} ({meant[kind]})." for kind, names in kinds.items()]
    lines += [few_groups(int(row["groups"]), "groups", "rule_tasks") for row in rows[:1]]
    return "\n".join(f"- {line}" for line in lines if line)


def grid(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which cells of a grid differ significantly from the run, and how many would by chance."""
    tried = [row for row in rows[1:] if not math.isnan(row["change"])]
    apart = {
        sign: [
            markup.literal(f"{row['axis']}: {row['choice']} ({row['change']:+.3f})")
            for row in tried
            if row[bound] * sign > 0
        ]
        for sign, bound in ((1, "change_low"), (-1, "change_high"))
    }
    lines = [
        f"**Better than the run**: {'; '.join(apart[1]) or 'none'}.",
        f"**Worse than the run**: {'; '.join(apart[-1]) or 'none'}.",
        f"Of {len(tried)} comparisons at 95 %, about {0.05 * len(tried):.0f} would be significant "
        "by chance alone.",
    ]
    failed = [
        markup.literal(f"{row['axis']}: {row['choice']} ({row['failed']})")
        for row in rows
        if row["failed"]
    ]
    if failed:
        lines.append(f"**Failed**: {'; '.join(failed)}.")
    if tried:
        lines.append(few_groups(int(tried[0]["groups"]), "groups", "trial_tasks"))
    return "\n".join(f"- {line}" for line in lines if line)


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
        return "All arms draw through the same filter of refused and no-effect actions."
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


def quoted(task: Task) -> str:
    """The instruction of a task, as a quotation."""
    return markup.quote(task.instruction)


def after(actions: int) -> str:
    """Where in an episode a state is: how many actions lead to it."""
    if not actions:
        return "In the first state"
    return f"After {actions} action{'s' * (actions > 1)}"


def excerpt(text: str, most: int = 700) -> str:
    """A page or a prompt for people: a page's parts on lines of their own.

    Of what is too long the middle is left out.
    """
    text = markup.visible(text).replace(" [SEP] ", "\n   ")
    return text if len(text) <= most else f"{text[: most // 2]}\n   [...]\n{text[-(most // 2) :]}"


def by_hand(tour: Tour, reward: float) -> str:
    """The reward at the end of a tour's walk, by hand and by the environment."""
    walked = f"After {', '.join(map(markup.code, tour.walk))}: " if tour.walk else ""
    counted = "" if tour.by_hand is None else f"{tour.counted}: {tour.by_hand:.3f} by hand, "
    return f"{walked}{counted}**{reward:.3f}** by the environment."


def prompted(prompt: Any) -> str:
    """How a model is prompted, from one of its prompts."""
    from qvlib.models.chat import ChatPrompt

    if isinstance(prompt, ChatPrompt):
        return (
            "The prompt is a conversation: what the world is and how actions are written, the "
            "task, then actions and what they showed in turn. The reply names the next action."
        )
    if prompt.instruction:
        how = (
            "The prompt is compact: instruction, actions so far, current page. Names such as "
            "product ids are shown as `#1`, `#2`: a small model copies one token better than many."
        )
    else:
        how = "The prompt is a transcript: the instruction, then each action and what it showed."
    return (
        f"{how} Prompts and replies are plain tokens of an ordinary `transformers` model and "
        "tokenizer."
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


def _control(metrics: Mapping[str, Any], n: int) -> str:
    """What a control's gain means, and how much the luck of the coins decides."""
    name = f"control_q_n{n}"
    shuffles, q = metrics["control_shuffles"][name], metrics["arms"][f"q_n{n}"]["reward_mean"]
    if len(shuffles) > 1:
        best = "the highest no less than" if max(shuffles) >= q else "all less than"
        each = (
            f" Reward of each shuffle: {', '.join(f'{mean:.3f}' for mean in shuffles)}; {best} "
            f"with Q ({q:.3f})."
        )
    else:
        each = " Of one shuffle: the interval does not cover the luck of its coins."
    if _above_zero(metrics["gains"][name]):
        each += " It gains without the search's verdict: look for a leak, or train more shuffles."
    return each
