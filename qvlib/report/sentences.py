"""Sentences about results, computed from ``metrics.json``.

So no prose holds a number typed by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qvlib.base import markup
from qvlib.core.statistics import wilson
from qvlib.report.formats import difference, interval

if TYPE_CHECKING:
    from qvlib.core.types import Task
    from qvlib.environments import Tour

NOT_SIGNIFICANT = "not significant (95 % interval contains 0)"


def holds_zero(entry: Mapping[str, Any]) -> bool:
    """Whether the interval of a gain holds zero, sums of floats being what they are."""
    low, high = entry["ci95"]
    return low <= 1e-9 and high >= -1e-9


def _above_zero(entry: Mapping[str, Any]) -> bool:
    return entry["mean"] > 0 and not holds_zero(entry)


def gain(name: str, entry: Mapping[str, Any], over: str) -> str:
    """What a paired gain and its interval allow to say."""
    relative = "" if entry["relative"] is None else f", {entry['relative']:+.0%}"
    if holds_zero(entry):
        verdict = NOT_SIGNIFICANT
    else:
        verdict = f"significantly {'above' if entry['ci95'][0] > 0 else 'below'} 0"
    change = difference(entry["mean"], *entry["ci95"])
    return f"**{name}** over {over}: {change}{relative}: {verdict}."


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
            + _control(gains[f"control_q_n{n}"], metrics["control_shuffles"][f"control_q_n{n}"])
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
    lines.append(
        f"**Success** (reward 1): {arms['sample']['success_rate']:.1%} of tasks with one sample, "
        f"{arms['q_n5']['success_rate']:.1%} reranked with n = 5, "
        f"{arms['q_n10']['success_rate']:.1%} with n = 10."
    )
    if len(metrics.get("by_seed", ())) > 1:
        each = "; ".join(
            f"seed {row['seed']} {row['q_n5 relative']:+.0%} and {row['q_n10 relative']:+.0%}"
            for row in metrics["by_seed"]
        )
        lines.append(f"**Seed by seed**, n = 5 and n = 10 against the same chain's sample: {each}.")
    return "\n".join(f"- {line}" for line in lines)


def _gap(metrics: Mapping[str, Any]) -> str:
    """How far reranking goes towards MCTS.

    A share of a difference that may be none says nothing, so it is then not given.
    """
    arms = metrics["arms"]
    way = (
        f"of the way from one sample to MCTS with the environment "
        f"({arms['sample']['reward_mean']:.3f} to {arms['mcts']['reward_mean']:.3f})"
    )
    if holds_zero(metrics["gains"]["mcts"]):
        return (
            f"**Gap closed**: not given as a share {way}, since the gain of MCTS itself is "
            f"{NOT_SIGNIFICANT}."
        )
    more = (
        f" and {metrics['gap_closed_n10']:.0%} with n = 10" if "gap_closed_n10" in metrics else ""
    )
    return f"**Gap closed**: {metrics['gap_closed']:.0%} with n = 5{more} {way}."


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
        "gains over one sample too, which it must not"
        if over_sample
        else "shows no gain over one sample, as it must"
    )
    if (
        better[1] and over_greedy
    ):  # then sampling itself is better there, and Q has not all the merit
        mean = metrics["gains_over_greedy"]["control_q_n5"]["mean"]
        control += f"; over greedy decoding it gains {mean:+.3f}, which is not Q's doing"
    return (
        f"On {tasks} held-out tasks, executing the action with the highest Q of five {what}; "
        f"the control with shuffled winners {control}."
    )


def accuracy(preferences: Mapping[str, Any]) -> str:
    """Held-out preference accuracy against the control's, and what was dropped from both."""
    right, pairs = preferences["held_out_accuracy"], preferences["held_out_pairs"]
    left_out = dropped(preferences)
    if right is None:
        said = (
            "No pairs are held out, so nothing can be said about new tasks; "
            "raise `heldout_share` or `train_tasks`."
        )
    else:
        shuffled = ", ".join(
            f"{c:.1%}" for c in preferences["control_held_out_accuracy"] if c is not None
        )
        share, verdict = _against_chance(right, pairs)
        said = (
            f"Of {pairs} held-out pairs the Q model orders {share} rightly, {verdict}; "
            f"trained on shuffled winners: {shuffled}."
        )
    return f"{said} {left_out}" if left_out else said


def dropped(facts: Mapping[str, Any]) -> str:
    """How many pairs were left out of training and of what is held out.

    Empty where all fit, and in older records.
    """
    train, held = facts.get("dropped_pairs", 0), facts.get("dropped_held_out_pairs", 0)
    pairs = f"{train} training and {held} held-out pairs"
    return f"{pairs} are longer than the model's context and were dropped." if train or held else ""


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
        share, verdict = _against_chance(right, held)
        lines.append(
            f"**Order**: {share} of {held} held-out pairs are ordered rightly, {verdict} "
            "(the interval takes pairs for independent; those of a task are not, so it is rather "
            "too narrow)."
        )
    rooms = [
        f"{gains[arm]['mean']:+.3f} by {what}"
        for arm, what in (("best_of_n", "the best of several whole episodes"), ("mcts", "a search"))
        if arm in gains
    ]
    lines.append(
        f"**Room**: where the environment itself judges, one sample is improved "
        f"{' and '.join(rooms)}; by Q {gains['q_n5']['mean']:+.3f} with n = 5."
    )
    return "\n".join(f"- {line}" for line in lines)


def agreement(siblings: Mapping[str, float]) -> str:
    """How often Q orders siblings as the search did; takes ``siblings.agreement``."""
    pairs = int(siblings["pairs"])
    if not pairs:
        return "No siblings are held out in a run this small."
    share, verdict = _against_chance(siblings["agreement"], pairs)
    return (
        f"Of {pairs} pairs of siblings with different values Q orders {share} as the search did, "
        f"{verdict}."
    )


def _against_chance(share: float, count: int) -> tuple[str, str]:
    """A share of ``count`` with its interval, and whether that contains one half."""
    low, high = wilson(share, count)
    if low > 0.5:
        verdict = "better than chance"
    elif high < 0.5:
        verdict = "worse than chance"
    else:
        verdict = "not distinguishable from chance (95 % interval contains 50 %)"
    return f"{share:.1%} {interval(low, high, '.1%')}", verdict


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
        "reranking": "gain while their control does not",
        "Q as a policy": "gain with shuffled winners, so they are not counted as reranking",
        "no gain shown": "show no gain",
    }
    return "\n".join(
        f"- **{kind}**: {', '.join(names)} ({meant[kind]})." for kind, names in kinds.items()
    )


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
    return "\n".join(f"- {line}" for line in lines)


def limits(metrics: Mapping[str, Any]) -> str:
    """What the intervals of a run cover."""
    seeds = metrics["seeds"]
    if len(seeds) == 1:
        return (
            "One seed of training: the intervals cover the choice of tasks, "
            "not the luck of training."
        )
    return (
        f"{len(seeds)} seeds of training: the intervals resample "
        f"{metrics.get('groups', 'products')} and seeds, but so few seeds tell little of the luck "
        "of training."
    )


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


def _control(entry: Mapping[str, Any], shuffles: Sequence[float]) -> str:
    """What a control's gain means.

    The mean reward of each shuffle tells how much the luck of the coins decides.
    """
    each = (
        f" Reward of each shuffle: {', '.join(f'{mean:.3f}' for mean in shuffles)}."
        if len(shuffles) > 1
        else " Of one shuffle: the interval does not cover the luck of its coins."
    )
    return each + _must_not_gain(entry)


def _must_not_gain(entry: Mapping[str, Any]) -> str:
    if holds_zero(entry):
        return " As it must."
    return (
        " It must not gain: look for a leak, or train more shuffles."
        if entry["mean"] > 0
        else (
            " It gains nothing, as it must, and misleads: more candidates give wrong scores more "
            "to err on."
        )
    )
