"""What a comparison of estimators allows to say: which gain, by what, and which is best.

Takes what ``numbers.comparison`` adds to ``metrics.json``. An order of two estimators is told only
where the interval of their paired difference tells it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qvlib.base import markup
from qvlib.report.formats import interval
from qvlib.report.sentences.claims import CHAINS
from qvlib.report.sentences.gains import above_zero, change, listed, verdict_of

Entry = Mapping[str, Any]
NONE = "No estimator was compared."
RIVALS = LABELS, INSTRUCTION, KIND, LIKELIEST = (
    "its controls, fitted to labels dealt anew",
    "itself told another task's instruction",
    "its mean score of the kind of action",
    "the likeliest of the same draws",
)
"""What a gain by an estimator exceeds."""


def compared(metrics: Mapping[str, Any]) -> str:
    """The comparison as a Markdown list."""
    entries = metrics.get("estimators") or {}
    lines = [*_lines(metrics, entries)] if entries else [NONE]
    lines += [
        f"**Not compared**: {markup.code(name)}: {markup.literal(why)}"
        for name, why in (metrics.get("not_compared") or {}).items()
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def compared_briefly(metrics: Mapping[str, Any]) -> str:
    """How many were compared, whose gain exceeds all that could explain it, and the best; or empty.

    Of the best: its difference from the published form.
    """
    entries = metrics.get("estimators") or {}
    if not entries:
        return ""
    gaining = {name: entry for name, entry in entries.items() if above_zero(entry["gain"])}
    proven = _exceeding(_proven(gaining)) or "no gain exceeds all that could explain it."
    return f"of {len(entries)}, {proven} {_published(metrics, entries)}".strip()


def _lines(metrics: Mapping[str, Any], entries: Mapping[str, Entry]) -> Iterator[str]:
    yield _conditions(metrics, entries)
    gaining = {name: entry for name, entry in entries.items() if above_zero(entry["gain"])}
    losing = {name: entry for name, entry in entries.items() if entry["gain"]["ci95"][1] < -1e-9}
    others = {n: entry for n, entry in entries.items() if n not in gaining and n not in losing}
    yield f"**Gain over one sample**: {_with(gaining, 'gain') or 'of none it is shown'}."
    if others:
        yield f"**No gain is shown** of {_with(others, 'gain')}."
    if losing:
        yield f"**Worse than one sample**: {_with(losing, 'gain')}."
    yield from _made_of(gaining)
    yield _order(metrics, entries)
    yield _published(metrics, entries)
    yield _own_trees(entries)
    yield _at_end(entries)
    chains = len(metrics.get("seeds") or [0])
    if chains < CHAINS:
        yield f"{chains} chain{'s' * (chains != 1)} of training: a lead, no headline."


def _conditions(metrics: Mapping[str, Any], entries: Mapping[str, Entry]) -> str:
    first = next(iter(entries.values()))["tuned_on"]
    chains, on = len(metrics.get("seeds") or [0]), len(first["seeds"])
    named, tried, count = len(entries), first["tries"], metrics["comparisons"]
    return (
        f"**{named} estimator{'s' * (named != 1)}**, the best of {tried} "
        f"setting{'s' * (tried != 1)} of each by {first['tasks']} dev tasks and {on} of {chains} "
        f"chain{'s' * (chains != 1)}, played once on test tasks. Of {count} differences that are "
        f"told with 95 % intervals about {0.05 * count:.0f} would miss zero by chance if none were "
        "real."
    )


def _with(entries: Mapping[str, Entry], key: str) -> str:
    """Names with a difference each, the highest first."""
    ordered = sorted(entries.items(), key=lambda item: -item[1][key]["mean"])
    return listed([f"{markup.code(name)} {change(entry[key])}" for name, entry in ordered])


def _made_of(gaining: Mapping[str, Entry]) -> Iterator[str]:
    """Which gains exceed all that could explain them, and what the others do not exceed."""
    proven = _proven(gaining)
    if proven:
        yield f"**Earned by labels and by reading**: {_exceeding(proven)}"
    for name in (name for name in gaining if name not in proven):
        entry = gaining[name]
        tests, less = exceeds(entry), _below(entry)
        open_ = [words for words, shown in tests.items() if not shown and words not in less]
        untested = [w for w in RIVALS if w not in tests and not (w == LABELS and entry["null"])]
        told = [f"earns less than {listed(less)}"] if less else []
        told += [f"is not shown to earn more than {listed(open_)}"] if open_ else []
        told += [f"was not compared with {listed(untested)}"] if untested else []
        told += [_few(entry)] if LABELS not in tests and entry["null"] else []
        yield f"{markup.code(name)} gains, but {listed(told)}."


def _proven(gaining: Mapping[str, Entry]) -> list[str]:
    """Those whose gain exceeds all that could explain it, each of which was played."""
    tests = {name: exceeds(entry) for name, entry in gaining.items()}
    return [n for n, told in tests.items() if all(told.values()) and len(told) == len(RIVALS)]


def _exceeding(names: list[str]) -> str:
    if not names:
        return ""
    return (
        f"the gain of {listed([markup.code(name) for name in names])} exceeds that of {LABELS}, of "
        f"{INSTRUCTION}, of {KIND} and of {LIKELIEST}."
    )


def _few(entry: Entry) -> str:
    """Of controls that are too few for an interval, how many gain as much."""
    shuffles, (found, *_) = entry["null"]["shuffles"], entry["null"]["found"]
    as_much = sum(gain >= found - 1e-12 for gain in shuffles)
    return (
        f"has too few controls for an interval, of {len(shuffles)} of which {as_much or 'none'} "
        f"gain{'s' * (as_much == 1)} as much"
    )


def exceeds(entry: Entry) -> dict[str, bool]:
    """Whether an estimator is shown to earn more than each thing that could explain its gain.

    What was not played, or has too few shuffles for an interval, is left out.
    """
    return {words: above_zero(told) for words, told in _differences(entry).items()}


def _below(entry: Entry) -> list[str]:
    """What an estimator is shown to earn less than."""
    return [words for words, told in _differences(entry).items() if told["ci95"][1] < -1e-9]


def _differences(entry: Entry) -> dict[str, Entry]:
    against = entry["against"]
    tests = {
        LABELS: entry["null"].get("mean"),
        INSTRUCTION: against.get("foreign"),
        KIND: against.get("kind_only"),
        LIKELIEST: against.get("likely"),
    }
    return {words: told for words, told in tests.items() if told}


def _order(metrics: Mapping[str, Any], entries: Mapping[str, Entry]) -> str:
    """Who is told apart from the best on dev tasks, by test tasks."""
    best = metrics["best"]
    less = {n: e for n, e in entries.items() if e.get("minus_best")}
    if not less:
        return ""
    worse = {n: e for n, e in less.items() if e["minus_best"]["ci95"][1] < -1e-9}
    better = {n: e for n, e in less.items() if above_zero(e["minus_best"])}
    alike = [markup.code(n) for n in less if n not in worse and n not in better]
    parts = [
        f"{_with(better, 'minus_best')} earn{'s' * (len(better) == 1)} more" if better else "",
        f"{_with(worse, 'minus_best')} earn{'s' * (len(worse) == 1)} less" if worse else "",
        f"{listed(alike)} cannot be told from it" if alike else "",
    ]
    return (
        f"**Best on dev tasks**: {markup.code(best)}. Beside it on test tasks, paired, "
        f"{'; '.join(filter(None, parts))}."
    )


def _published(metrics: Mapping[str, Any], entries: Mapping[str, Entry]) -> str:
    told = metrics.get("best_minus_published")
    if not told:
        return (
            "**Against the published form**: it is itself the best on dev tasks."
            if metrics["best"] == "published"
            else ""
        )
    test = told["test"]
    own = " and trees are its own" if entries["published"]["own_trees"] else " are its own"
    return (
        f"**Against the published form**, whose pairs{own}, {markup.code(metrics['best'])} on "
        f"test tasks: {change(test)}: {verdict_of(test)}; over tasks alone, the chains taken as "
        f"given, {interval(*test['ci95_tasks'], '+.3f')}. On dev tasks, where it was chosen, "
        f"{change(told['dev'])}."
    )


def _own_trees(entries: Mapping[str, Entry]) -> str:
    own = [markup.code(name) for name, entry in entries.items() if entry["own_trees"]]
    if not own:
        return ""
    return f"{listed(own)} learn{'s' * (len(own) == 1)} from trees of other settings, same tasks."


def _at_end(entries: Mapping[str, Entry]) -> str:
    """Whose settings were chosen at an end of what was tried: what is beyond is not known."""
    told = {name: entry["tuned_on"] for name, entry in entries.items()}
    ended = [f"{markup.code(n)} ({t['chosen']})" for n, t in told.items() if t.get("at_end")]
    if not ended:
        return ""
    return (
        f"**Chosen at an end of what was tried**, so that settings beyond may earn more: "
        f"{listed(ended)}."
    )
