"""What the project's README shows of the results: a run's table, times, files and notebooks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import display_path
from qvlib.base.terminal import format_duration
from qvlib.report import kinds, sentences
from qvlib.report.formats import difference, interval
from qvlib.report.numbers.against import METHOD, rivals
from qvlib.report.results_files import (
    PLUMBING,
    is_plumbing,
    rank,
    read,
    read_metrics,
    runs,
    url,
)
from qvlib.report.run_notes import run_notes
from qvlib.report.run_page import (
    READS,
    effect_rows,
    gain_cells,
    grid_rows,
    paired,
    table,
    tried_on,
)
from qvlib.report.sentences import two_by_two

ARMS = {  # those of the table in its order -> what they execute, those that go together in one
    ("sample",): "one sampled action",
    ("greedy",): "the most likely",
    ("random_n5",): "of {n} samples a random one",
    ("likely_n5", "likely_n10"): "of {n} the likeliest",
    ("self_consistency_n5",): "of {n} the one drawn most often",
    ("script",): "what a short fixed script of the world says, which may be told parts of the "
    "goal and compares nothing",
    ("demonstrator",): "what the scripted agent says that small agents imitate: it is told "
    "the goal, but made to err",
    ("rft",): "a sample of the agent fine-tuned on its trees' best episodes",
    ("eto",): "a sample of the agent tuned on its trees' best against worst episodes (ETO)",
    ("agent_evol",): "a sample of the agent fine-tuned in rounds on what it samples itself "
    "(AgentEvol)",
    ("q_n5", "q_n10"): "of {n} the one with the highest Q, which is the method",
    ("saycan_n5",): "of {n} the one with the highest probability times value",
    ("foreign_q_n5", "foreign_q_n10"): "of {n} the one with the highest Q under another task's "
    "instruction",
    ("kind_only_n5", "kind_only_n10"): "of {n} the one whose kind of action has the highest mean Q",
    ("within_kind_n5", "within_kind_n10"): "of {n} the one with the highest Q within the kind of "
    "the first draw",
    ("oracle_n5", "oracle_n10"): "of {n} the one after which a demonstrator without errors earns "
    "most, about what reranking could reach",
    ("tuned_policy",): "a sample of the tuned model itself",
    ("control_q_n5", "control_q_n10"): "",  # of these more is said
    ("search",): "",
    ("best_of_n",): "the best of several whole episodes, as the environment judges",
    ("beam",): "what a beam search by value in the environment chooses by value",
    ("best_first",): "the first end that a best-first search by value in the environment reaches",
    ("lats",): "the best episode of a tree search that the agent's own judgement guides, or Q",
    ("reflexion", "reflexion_q"): "the best of several episodes with lessons of those that failed",
}
OF_CONTENT = {  # rival of Q of five, as `against` names it -> the head of its column
    "likely": "minus likeliest",
    "null": "minus its shuffles",
    "foreign": "minus foreign instruction",
    "kind_only": "minus mean of the kind",
    "script": "minus script",
    "demonstrator": "minus demonstrator",
}
NUMBERS = {"5": "five", "10": "ten"}
COMMAND = "quick"  # the run of `make run`
ABLATIONS = "ablations"  # the run whose grid is told
FIGURES = {  # the first that a run has -> what it shows
    "reads": "Does Q read? Gains over one sample, with 95 % intervals",
    "reward_by_arm": "Mean reward by arm, with 95 % intervals",
}


def write_front_page(readme: str | Path, results_dir: str | Path, run: str = COMMAND) -> Path:
    """Write what the project's README shows of the results between its markers.

    A run's table and figure, the parameter files, the times and the list of notebooks; the last two
    of the run that the README's command makes, where it is there. The times of the two commands
    are those that ``.ci/fresh`` measured, in ``times.json`` of the results.

    Raises:
        QvlibError: the run has no results, or the README no markers.
    """
    readme, results = Path(readme), Path(results_dir)
    folder, root = results / run, readme.parent
    metrics, manifest = read_metrics(folder), read(folder / "manifest.json")
    embedded = results / COMMAND if (results / COMMAND / "manifest.json").exists() else folder
    shown = read(embedded / "manifest.json")
    times = results / "times.json"
    others = [
        (other, read_metrics(other))
        for other in runs(results)
        if other != folder and not is_plumbing(other.name) and other.name != ABLATIONS
    ]
    blocks = {
        "result": "\n\n".join(
            [
                _headline(metrics, manifest, folder, root),
                *_others(others, run_notes({folder: metrics, **dict(others)}), root),
                *_compared(others, root),
                *_causes([run for run, _ in others], root),
                *_choices(results / ABLATIONS, root),
            ]
        ),
        "files": _parameter_files(root, results),
        "times": _times(shown, read(times) if times.exists() else None),
        "notebooks": _notebooks(shown, embedded, root),
    }
    text = readme.read_text()
    for name, content in blocks.items():
        block = re.search(
            rf"(<!-- {name}: begin[^\n]*-->\n).*?(<!-- {name}: end -->)", text, re.DOTALL
        )
        if not block:
            raise QvlibError(
                f"{display_path(readme)} has no lines <!-- {name}: begin --> and "
                f"<!-- {name}: end -->; restore them"
            )
        text = text[: block.end(1)] + content + "\n" + text[block.start(2) :]
    return write_atomic(readme, text)


def _headline(
    metrics: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path, root: Path
) -> str:
    played = metrics["arms"]
    arms = {arm: played[arm] for names in ARMS for arm in names if arm in played}
    tasks = next(iter(arms.values()))["tasks"]
    seeds, groups = (
        metrics.get("seeds", [metrics.get("seed", 0)]),
        metrics.get("groups", "products"),
    )
    kind = metrics.get("intervals", "bootstrap")  # older runs do not tell
    given = manifest.get("parameters", {})
    notes = [
        f"`{metrics['run']}`: {tasks} held-out tasks on {groups} unseen in training, "
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}, terminal reward in [0, 1], "
        f"paired by task, {kind} intervals over {groups}{' and seeds' * (len(seeds) > 1)}.",
        sentences.filtering(metrics.get("filter_actions", given.get("filter_actions"))),
        sentences.limits(metrics),
    ]
    parts = [sentences.claim(metrics)] if "preferences" in metrics else []  # as the report's
    parts.append(" ".join(filter(None, notes)))
    ordered = kinds.commonest(metrics.get("accuracy_by_kind") or {})
    parts += [ordered] if ordered else []
    second = metrics.get("other_agent_gain")
    if second and second["relative"] is not None:
        parts.append(
            "A second agent, of another size and other demonstrations, reranked by the same Q "
            f"model: {difference(second['mean'], *second['ci95'])} "
            f"({sentences.relative_gain(second)}) over its own sample."
        )
    picture = next(
        (name for name in FIGURES if (folder / "figures" / f"{name}.png").exists()),
        "reward_by_arm",
    )
    parts += [
        _table(arms, metrics),
        _explained(arms, metrics, url(folder / "README.md", root)),
        f"![{FIGURES[picture]}]({url(folder / 'figures' / f'{picture}.png', root)})",
    ]
    return "\n\n".join(parts)


def _table(arms: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The arms with their gains over one sample and, where it was told, what Q gains over them."""
    q_minus = _q_minus(metrics)
    head = "arm|mean reward|95 %|gain over one sample|95 %|relative|success".split("|")
    rows = [
        [
            f"`{arm}`",
            f"{row['reward_mean']:.3f}",
            interval(*row["ci95"]),
            *gain_cells(metrics["gains"].get(arm), 0),
            sentences.success(row),
            *([paired(q_minus.get(arm))] if q_minus else []),
        ]
        for arm, row in arms.items()
    ]
    return table([*head, "Q minus it"] if q_minus else head, rows)


def _q_minus(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Arm -> what Q earns more, of as many candidates; of five where an arm has no number."""
    against, null = metrics.get("against") or {}, metrics.get("null") or {}
    q_minus = {
        "sample": (metrics.get("gains") or {}).get("q_n5"),
        "control_q_n5": null.get("mean"),
        "control_q_n10": (null.get("n10") or {}).get("mean"),
    }
    q_minus = {arm: told for arm, told in q_minus.items() if told and against}
    for method in reversed(METHOD):
        told = against.get(method) or {}
        q_minus |= {arm: told[rival] for rival, arm in rivals(method).items() if rival in told}
    return q_minus


def _explained(arms: Mapping[str, Any], metrics: Mapping[str, Any], page: str) -> str:
    """What each arm of the table is; ``page``: address of the run's own."""
    whats = []
    for names, executes in ARMS.items():
        there = [arm for arm in names if arm in arms]
        if there and executes:
            n = " or ".join(NUMBERS.get(arm.rpartition("_n")[2], "") for arm in there)
            named = " and ".join(f"`{arm}`" for arm in there)
            whats.append(f"{named}, {executes.format(n=n)}")
    said = [f"What is executed at each step: {'; '.join(whats)}."]
    if {"control_q_n5", "control_q_n10"} & arms.keys():
        opposite = "" if metrics.get("null") else ", every second the opposite of the one before"
        said.append(
            "`control` is the same Q training on shuffled labels (each pair's winner drawn by a "
            f"coin; a value head's values dealt anew), the mean of its shuffles{opposite}: a "
            f"single one gains or loses by luck ([each is listed]({page}))."
        )
    if weight := metrics.get("prior_weight"):
        said.append(
            f"Wherever Q chooses, {weight:g} times the agent's own log-probability is added to it."
        )
    if "search" in arms:
        told = metrics.get("search_iterations")
        often = f", {told} iterations a task" if told is not None else ""
        said.append(
            f"`search` searches with the environment at test time{often}: what undo and retry "
            "buy, and no upper bound."
        )
    if _q_minus(metrics):
        said.append(
            "*Q minus it*: the paired difference from Q of as many candidates, of five where an "
            "arm has none."
        )
    return " ".join(said)


def _others(
    others: Sequence[tuple[Path, Mapping[str, Any]]], notes: Mapping[Path, list[str]], root: Path
) -> list[str]:
    """The other runs in a table: the gain, and what Q earns beyond what could explain it."""
    if not others:
        return []
    head = ["run", "chains", "tasks", "one sample", "Q of 5", "its gain"]
    rows = []
    for run, metrics in others:
        arms, told = metrics["arms"], (metrics.get("against") or {}).get("q_n5") or {}
        told = {"null": (metrics.get("null") or {}).get("mean"), **told}
        played = [arms.get(arm) for arm in ("sample", "q_n5")]
        named = f"[`{metrics['run']}`]({url(run / 'README.md', root)})"
        rows.append(
            [
                "<br>".join([named, *notes[run]]),
                str(metrics["chains"]),
                str(next(iter(arms.values()))["tasks"]),
                *(f"{arm['reward_mean']:.3f}" if arm else "" for arm in played),
                _broken(metrics["gains"].get("q_n5")),
                *(_broken(told.get(rival)) for rival in OF_CONTENT),
                READS.get(metrics.get("reads"), "not tested"),
            ]
        )
    return [
        "The other runs: mean rewards, and paired differences of Q of five with their 95 % "
        "intervals, which of one chain do not cover the luck of training. Under a name stands what "
        "is added to Q (π is the agent's own probability), whose Q it is where it is not that of "
        "step DPO, or whose episodes are shown again. Each page says in words what its run shows "
        "and what it does not.",
        table([*head, *OF_CONTENT.values(), "Q reads"], rows),
    ]


def _compared(others: Sequence[tuple[Path, Mapping[str, Any]]], root: Path) -> list[str]:
    """What the runs that compare estimators found, in a line each."""
    return [
        f"Estimators on the same trees ([`{run.name}`]({url(run / 'README.md', root)})): {found}"
        for run, metrics in others
        if (found := sentences.compared_briefly(metrics))
    ]


def _causes(others: Sequence[Path], root: Path) -> list[str]:
    """Why one way to learn a step's value is ahead of another, by the runs that asked."""
    return [
        f"Preferences or regression, on {tried_on(grid_rows(run))} "
        f"([`{run.name}`]({url(run / 'README.md', root)})): {two_by_two.conclusion(rows)}"
        for run in others
        if (rows := effect_rows(run))
    ]


def _choices(run: Path, root: Path) -> list[str]:
    """What the choices of the method matter, by the grid of a run."""
    rows = grid_rows(run)
    if not rows:
        return []
    about = (
        f"Choices of the method, one changed at a time, on {tried_on(rows)} "
        f"([`{run.name}`]({url(run / 'README.md', root)})), change of the mean reward:"
    )
    return [about, sentences.grid(rows)]


def _broken(entry: Mapping[str, Any] | None) -> str:
    """A difference over its interval, for a narrow column."""
    return paired(entry).replace(" ", "<br>", 1)


def _notebooks(manifest: Mapping[str, Any], folder: Path, root: Path) -> str:
    lines = ["| notebook | question | time | rendered |", "|---|---|---|---|"]
    for name, seconds in manifest["notebooks"].items():
        rendered = folder / "notebooks" / f"{name}.ipynb"
        first = "".join(read(rendered)["cells"][0]["source"])
        question = " ".join(
            re.search(r"\*\*Question\.\*\*(.*?)(?:\n\n|$)", first, re.DOTALL)[1].split()
        )
        lines.append(
            f"| [{name}](notebooks/{name}.ipynb) | {question} | {format_duration(seconds)} | "
            f"[notebook]({url(rendered, root)}) |"
        )
    return "\n".join(lines)


def _parameter_files(root: Path, results: Path) -> str:
    """The parameter files with what they say of themselves and what their committed run took."""
    lines = [
        "| parameter file | what | committed run: wall time, some beside other work |",
        "|---|---|---|",
    ]
    files = {path.stem: path for path in (root / "params").glob("*.yml")}
    order = sorted(files, key=lambda n: (n != PLUMBING, is_plumbing(n), rank(n), n))
    for name in order:
        head = [
            line[2:]
            for line in files[name].read_text().split("\n\n")[0].splitlines()
            if line.startswith("# ")
        ]
        says = " ".join(head).split(". ")[0].rstrip(".:")
        manifest = results / name / "manifest.json"
        took = _took(read(manifest)) if manifest.exists() else "not run here"
        lines.append(f"| [`params/{name}.yml`](params/{name}.yml) | {says} | {took} |")
    return "\n".join(lines)


def _took(manifest: Mapping[str, Any]) -> str:
    machine, peak = manifest.get("machine", {}), manifest.get("peak_memory_gib", {})
    where = machine.get("gpu") or f"{machine.get('cpus', '?')} cores"
    memory = [
        f"{peak[kind]:.1f} GiB {of}"
        for kind, of in (("process", "a process"), ("gpu", "of the GPU"))
        if kind in peak
    ]
    return ", ".join([f"{format_duration(manifest['seconds'])} on {where}", *memory])


def _times(manifest: Mapping[str, Any], measured: Mapping[str, Any] | None) -> str:
    cpus = manifest.get("machine", {}).get("cpus", "?")
    alone = (
        f"The notebooks of `{manifest['name']}` alone took "
        f"{format_duration(manifest['seconds'])} on {cpus} cores."
    )
    # Those of an older run say nothing of this one.
    if not measured or measured.get("run", math.inf) < manifest["seconds"]:
        return alone
    commands = ", ".join(
        f"`make {name}` {format_duration(measured[name])}"
        for name in ("run", "test")
        if name in measured
    )
    beside = f", beside {measured['beside']} on the same cores" if "beside" in measured else ""
    return (
        f"Measured in a fresh clone on {measured['cpus']} cores, installation included "
        f"(`.ci/fresh`){beside}: {commands}. {alone}"
    )
