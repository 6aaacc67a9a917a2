"""What a run claims: only what beat its rivals, and of what a gain is made where Q does not read.

Each verdict is the outcome of a test: a paired interval, or a rank among independent shuffles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qvlib.base import markup
from qvlib.report.formats import relative
from qvlib.report.sentences.gains import (
    above_zero,
    change,
    gain,
    listed,
    relative_gain,
    success,
    verdict_of,
)

CHAINS = 3
"""Fewer whole chains make no headline: chains differ by more than the interval over tasks says."""
RIVALS = {
    "likely": "the likeliest of them",
    "foreign": "Q told another task's instruction",
    "kind_only": "the mean Q of the kind of action",
    "within_kind": "Q within the kind of the first draw",
    "script": "the fixed script",
    "demonstrator": "the demonstrator",
}
"""What ``metrics["against"]`` compares with, in words; greedy has its own gains."""
STEP_DPO = "step_dpo"  # what Q is where nothing else is said


def claim(metrics: Mapping[str, Any]) -> str:
    """The run in one paragraph: what the method beat, what it did not, whether Q reads."""
    said = [_beaten(metrics), reads(metrics), _rank(metrics), _shuffles_gain(metrics)]
    chains = len(metrics.get("seeds") or [0])
    if chains < CHAINS:
        said.append(
            f"{'One chain' if chains == 1 else f'{chains} chains'} of training: a lead, "
            "no headline."
        )
    return " ".join(filter(None, said))


def _beaten(metrics: Mapping[str, Any]) -> str:
    entries = {"one sample": metrics["gains"]["q_n5"]}
    entries["greedy decoding"] = metrics["gains_over_greedy"]["q_n5"]
    told = metrics.get("against", {}).get("q_n5", {})
    entries |= {words: told[rival] for rival, words in RIVALS.items() if rival in told}
    better = [words for words, entry in entries.items() if above_zero(entry)]
    worse = [w for w, e in entries.items() if not above_zero(e) and e["ci95"][1] < -1e-9]
    open_ = [words for words in entries if words not in better and words not in worse]
    tasks = metrics["arms"]["q_n5"]["tasks"]
    parts = [
        f"earns more than {listed(better)}" if better else "",
        f"is not shown to earn more than {listed(open_)}" if open_ else "",
        f"earns less than {listed(worse)}" if worse else "",
    ]
    return (
        f"On {tasks} held-out tasks, executing the action with the highest Q{scored(metrics)} of "
        f"five {'; it '.join(filter(None, parts))}."
    )


def scored(metrics: Mapping[str, Any]) -> str:
    """What follows "Q" where the method chooses by more, or by another Q, than that of step DPO.

    As in "Q + 0.2 log π", π being the agent's own probability of the action (``prior_weight``).
    """
    estimator, weight = metrics.get("estimator"), metrics.get("prior_weight") or 0.0
    of = "" if estimator in (None, "", STEP_DPO) else f" of {markup.code(estimator)}"
    return of + (f" + {weight:g} log π" if weight else "")


def reads(metrics: Mapping[str, Any]) -> str:
    """Whether Q reads, by the rule of ``numbers.against.reads``; else of what the gain is made."""
    told, known = metrics.get("against", {}).get("q_n5", {}), metrics.get("reads")
    if known is None:
        return _one_instruction(metrics)
    tests = " and ".join(
        f"{change(told[rival])} over {RIVALS[rival]}" for rival in ("foreign", "kind_only")
    )
    if known:
        return f"**Q reads**: {tests}."
    return f"**That Q reads is not shown**: {tests}. {_made_of(metrics)}".strip()


def _one_instruction(metrics: Mapping[str, Any]) -> str:
    """Why it is not known whether Q reads, where the tasks are the reason."""
    played = (metrics.get("splits") or [{}])[-1].get("instructions")
    if played != 1:
        return ""
    return "**Whether Q reads is not tested**: all test tasks have the same instruction."


def _made_of(metrics: Mapping[str, Any]) -> str:
    gains = metrics["gains"]
    if not above_zero(gains["q_n5"]):
        return ""
    shares = [
        f"{change(gains[arm])} are had {how}"
        for arm, how in (
            ("foreign_q_n5", "with any instruction"),
            ("kind_only_n5", "by the kind of action alone"),
            ("within_kind_n5", "within the kind of the first draw"),
        )
        if arm in gains
    ]
    said = f"Of its gain over one sample, {change(gains['q_n5'])}, {listed(shares)}."
    weight = metrics.get("prior_weight") or 0.0
    if not weight or not shares or "likely_n5" not in gains:
        return said
    return (
        f"{said} Each of these adds the same {weight:g} log π, and the likeliest of the five, "
        f"without any Q, has {change(gains['likely_n5'])}."
    )


def _shuffles_gain(metrics: Mapping[str, Any]) -> str:
    """Told in the claim where the coins gain as well: then sampling or the pairs have a merit."""
    known = metrics.get("null")
    if not known:
        return ""  # opposite coins, in older runs
    gaining = [
        over
        for over, gains in (("one sample", "gains"), ("greedy decoding", "gains_over_greedy"))
        if "control_q_n5" in metrics[gains] and above_zero(metrics[gains]["control_q_n5"])
    ]
    if not gaining:
        return ""
    means = {"one sample": "gains", "greedy decoding": "gains_over_greedy"}
    told = [f"{change(metrics[means[over]]['control_q_n5'])} over {over}" for over in gaining]
    why = (
        "which the labels did not do"
        if known.get("mean")
        else f"though so few shuffles ({len(known['shuffles'])}) may do so by luck"
    )
    return f"Q models of shuffled labels gain too, {listed(told)}, {why}."


def least_rank(metrics: Mapping[str, Any], n: int = 5) -> float:
    """The least rank p that so many shuffles can give, where none gains as much as Q."""
    null = metrics["null"] if n == 5 else metrics["null"]["n10"]
    chains = len(metrics.get("seeds") or [0])
    return (len(null["shuffles"]) // chains + 1) ** -chains


def null(metrics: Mapping[str, Any], n: int = 5) -> str:
    """How Q stands among its shuffles; an older run tells the rewards of its shuffles alone."""
    told = metrics.get("null") or {}
    told = told if n == 5 else told.get("n10", {})
    if not told:
        return _older_shuffles(metrics, n)
    shuffles, chains = told["shuffles"], len(metrics.get("seeds") or [0])
    each, least = len(shuffles) // chains, least_rank(metrics, n)
    rank, found = told["rank_p"], metrics["gains"][f"q_n{n}"]["mean"]
    limit = ", the least that so few can give" if rank <= least * 1.001 and rank > 0.05 else ""
    reached = _reached(told, found)
    of = f"{each} independent shuffle{'s' * (each != 1)} of the labels" + (
        f" in each of {chains} chains" if chains > 1 else ""
    )
    minus = told.get("mean")
    return (
        f"**Null**, n = {n}: of {of}, {reached or 'none'} gain{'s' * (reached == 1)} as much as Q"
        f"{' of its chain' * (chains > 1)} ({min(shuffles):+.3f} to {max(shuffles):+.3f}; "
        f"rank p = {rank:.2g}{limit})."
        + (f" Q minus its shuffles: {change(minus)}: {verdict_of(minus)}." if minus else "")
    )


def _reached(told: Mapping[str, Any], found: float) -> int:
    """How many shuffles gain as much as Q in their chain; older runs tell Q's mean gain alone."""
    shuffles = told["shuffles"]
    own = told.get("found", [found])
    each = len(shuffles) // len(own)
    return sum(v >= own[i // each] - 1e-12 for i, v in enumerate(shuffles))


def _rank(metrics: Mapping[str, Any]) -> str:
    """The null in a sentence of the claim."""
    told = metrics.get("null")
    if not told:
        return ""
    reached = _reached(told, metrics["gains"]["q_n5"]["mean"])
    chains, count = len(metrics.get("seeds") or [0]), len(told["shuffles"])
    minus = told.get("mean")
    return (
        f"Of {count} shuffle{'s' * (count != 1)} of the labels {reached or 'none'} "
        f"gain{'s' * (reached == 1)} as much as Q{' of the same chain' * (chains > 1)} "
        f"(rank p{' of the mean over chains' * (chains > 1)} = {told['rank_p']:.2g})"
        + (f"; Q minus its shuffles {change(minus)}: {verdict_of(minus)}." if minus else ".")
    )


def _older_shuffles(metrics: Mapping[str, Any], n: int) -> str:
    shuffles = metrics.get("control_shuffles", {}).get(f"control_q_n{n}")
    if not shuffles:
        return ""
    q = metrics["arms"][f"q_n{n}"]["reward_mean"]
    best = "the highest no less than" if max(shuffles) >= q else "all less than"
    return (
        f"**Shuffled labels**, n = {n}: rewards {', '.join(f'{mean:.3f}' for mean in shuffles)}, "
        f"{best} with Q ({q:.3f}); so few have no rank to speak of."
    )


def verdict(metrics: Mapping[str, Any]) -> str:
    """The result as a Markdown list: gains, rivals, null, other uses, success, chains."""
    return "\n".join(f"- {line}" for line in _lines(metrics) if line)


def _lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    gains, arms = metrics["gains"], metrics["arms"]
    yield _primary(metrics)
    for over, base in (("gains", "one sample"), ("gains_over_greedy", "greedy")):
        for n in (5, 10):
            yield gain(f"Q-reranked, n = {n}", metrics[over][f"q_n{n}"], base)
    for n in (5, 10):
        yield _rivals(metrics, n)
    for n in (5, 10):
        yield null(metrics, n)
    others = {
        "tuned_policy": "the tuned model as the policy",
        "rft": "the agent fine-tuned on its trees' best episodes (RFT)",
        "eto": "the agent tuned on its trees' best against worst episodes (ETO)",
        "agent_evol": "the agent fine-tuned in rounds on what it samples itself (AgentEvol)",
        "self_consistency_n5": "the action drawn most often of five, without Q",
        "saycan_n5": "of five the highest probability times value (SayCan)",
        "best_of_n": "head-room: the best of several whole episodes, as the environment judges",
        "beam": "beam search by value in the environment",
        "best_first": "best-first search by value in the environment",
        "lats": "tree search in the environment, guided from within (LATS)",
        "reflexion": "the best of several episodes with lessons, as the environment judges",
        "reflexion_q": "the same with Q of n = 5",
        "oracle_n5": "head-room: of five the best, as the demonstrator without errors tries",
    }
    for arm, words in others.items():
        if arm in gains:
            yield gain(words, gains[arm], "one sample")
    yield _second(metrics)
    yield _search(metrics)
    one, five, ten = (success(arms[arm]) for arm in ("sample", "q_n5", "q_n10"))
    yield (
        f"**Success** (reward 1): {one} of tasks with one sample, {five} reranked with n = 5, "
        f"{ten} with n = 10."
    )
    if metrics.get("against"):
        yield (
            "Of so many comparisons some intervals miss zero by luck: one was chosen before, the "
            "primary one."
        )
    if len(metrics.get("by_seed", ())) > 1:
        each = "; ".join(
            f"seed {row['seed']} "
            + " and ".join(relative(row[f"{arm} relative"]) or "-" for arm in ("q_n5", "q_n10"))
            for row in metrics["by_seed"]
        )
        yield (
            f"**Seed by seed**, n = 5 and n = 10 against the same chain's sample, each one "
            f"training and without an interval: {each}."
        )


def _primary(metrics: Mapping[str, Any]) -> str:
    if not metrics.get("primary"):
        return ""
    found = metrics.get("primary_difference")
    outcome = f"{change(found)}: {verdict_of(found)}" if found else "not played in this run"
    return f"**Primary comparison** (parameter `primary`): `{metrics['primary']}`: {outcome}."


def _rivals(metrics: Mapping[str, Any], n: int) -> str:
    told = metrics.get("against", {}).get(f"q_n{n}", {})
    parts = [f"{words} {change(told[r])}" for r, words in RIVALS.items() if r in told]
    return f"**Q of n = {n} minus** {'; '.join(parts)}." if parts else ""


def _second(metrics: Mapping[str, Any]) -> str:
    """The second agent's gain, and what of it another instruction does not give."""
    if "other_agent_gain" not in metrics:
        return ""
    words = "another agent, reranked by the same Q model"
    said = gain(words, metrics["other_agent_gain"], "its own sample")
    content = metrics.get("other_agent_against_foreign")
    if not content:
        return said
    return (
        f"{said} Minus Q told another task's instruction: {change(content)}: {verdict_of(content)}."
    )


def _search(metrics: Mapping[str, Any]) -> str:
    """What searching with the environment earns, and how far reranking goes there.

    A share of a difference that may be none says nothing, nor does one of a gain that may be none:
    those are not given.
    """
    arms, gains = metrics["arms"], metrics["gains"]
    name = next((arm for arm in ("search", "mcts") if arm in arms), "")
    if not name or metrics.get("gap_closed") is None:
        return ""
    count = metrics.get("search_iterations")
    how = f", {count} iterations a task" if count else ""
    way = (
        f"with the environment, which it may undo{how}: {arms[name]['reward_mean']:.3f} against "
        f"{arms['sample']['reward_mean']:.3f} of one sample"
    )
    if not above_zero(gains[name]):
        return f"**Search** {way}: no gain of its own is shown."
    shares = [
        f"{metrics[key]:.0%} with n = {n}"
        if above_zero(gains[f"q_n{n}"])
        else f"none that is shown with n = {n}"
        for n, key in ((5, "gap_closed"), (10, "gap_closed_n10"))
        if key in metrics
    ]
    return f"**Search** {way}; of that gap reranking closes {listed(shares)}. It is no upper bound."


def diagnosis(metrics: Mapping[str, Any]) -> str:
    """What bounds the gain.

    How far the agent is from the demonstrator, how deep the pairs are, what Q learnt of them, and
    how much the environment would find.
    """
    from qvlib.report.sentences.orders import of_held_out

    preferences, gains = metrics["preferences"], metrics["gains"]
    depths = {
        int(depth): count for depth, count in (preferences.get("pairs_by_depth") or {}).items()
    }
    total = sum(depths.values())
    shallow = sum(count for depth, count in depths.items() if depth < 2)
    lines = []
    if "demonstrator" in gains:
        sampled, shown = (metrics["arms"][arm]["reward_mean"] for arm in ("sample", "demonstrator"))
        lines.append(
            f"**Agent**: one sample earns {sampled:.3f}, the scripted demonstrator, which is told "
            f"the goal, {shown:.3f}: {change(gains['demonstrator'])}."
        )
    if total:
        lines.append(
            f"**Pairs**: {total} in all, {shallow / total:.0%} of them about the first two actions "
            f"of an episode, the deepest after {max(depths)} actions."
        )
    right, held = preferences["held_out_accuracy"], preferences["held_out_pairs"]
    if right is not None:
        share, outcome = of_held_out(preferences)
        lines.append(f"**Order**: {share} of {held} held-out pairs are ordered rightly, {outcome}.")
    rooms = [
        f"{what} {change(gains[arm])}"
        for arm, what in (
            (
                "oracle_n5",
                "of five the best, as the demonstrator without errors tries",
            ),
            ("best_of_n", "the best of several whole episodes"),
            ("search", "a search"),
            ("mcts", "a search"),
        )
        if arm in gains
    ]
    lines.append(
        f"**Room**: against one sample, where actions are tried in the environment, "
        f"{listed(rooms)}; by Q {change(gains['q_n5'])} with n = 5."
    )
    return "\n".join(f"- {line}" for line in lines)


def one_line(metrics: Mapping[str, Any]) -> str:
    """Levels beside gains: one sample, and Q of five and ten with their relative gains."""
    arms, gains = metrics["arms"], metrics["gains"]
    told = [
        f"{arms[f'q_n{n}']['reward_mean']:.3f} reranked with n = {n} ({change(gains[f'q_n{n}'])}, "
        f"{relative_gain(gains[f'q_n{n}']) or 'of next to nothing'})"
        for n in (5, 10)
    ]
    return f"Mean reward {arms['sample']['reward_mean']:.3f} sampled once, {', '.join(told)}."
