"""The index of the results folder: one table of all runs, and a page a run behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qvlib.agents.arms import GREEDY
from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import display_path
from qvlib.report import kinds
from qvlib.report.formats import interval
from qvlib.report.results_files import is_plumbing, read_metrics, runs, url
from qvlib.report.run_notes import run_notes
from qvlib.report.run_page import (
    CODE,
    READS,
    Origin,
    misstated,
    origin_of,
    table,
    write_run_page,
)
from qvlib.report.sentences import FEW_GROUPS, least_rank

Metrics = Mapping[str, Any]
COLUMNS = {  # of the first table -> the arm
    "sample": "sample",
    "greedy": "greedy",
    "likeliest of 5": "likely_n5",
    "Q of 5": "q_n5",
    "foreign": "foreign_q_n5",
    "null": "control_q_n5",
    "script": "script",
    "demonstrator": "demonstrator",
    "search": "search",
    "oracle of 5": "oracle_n5",
}
TITLE = "# Results"
HEAD = (
    f"{TITLE}\n\nMean terminal reward in [0, 1] on held-out tasks, its 95 % interval beneath. "
    "Compare within a row alone: worlds, agents, tasks and code differ between rows. Written by "
    "`qvlib index` from each run's `metrics.json`; empty is what a run did not play or test."
)
TERMS = """\
Each arm plays the same tasks once. At each step it executes

- **sample**: one action that the agent samples; **greedy**: its likeliest, decoded greedily;
- **likeliest of 5**: of five samples the one with the highest probability, which is what five draws
  are worth without Q;
- **Q of 5**: of five samples the one with the highest learnt Q, which is the method; under a run's
  name stands what is added to Q (π is the agent's own probability), whose Q it is where it is not
  that of step DPO, or whose episodes are shown again;
- **foreign**: the same, with Q told the instruction of another task;
- **null**: the same, with Q models of shuffled labels (each pair's winner drawn by a coin; a value
  head's values dealt anew), the mean over the shuffles; no interval where opposite shuffles were
  averaged, as older runs did;
- **script**: what a short fixed script of the world says, which may be told parts of the goal and
  compares nothing; **demonstrator**: what the scripted agent says that small agents imitate: it is
  told the goal, but made to err;
- **oracle of 5**: of five samples the one after which a demonstrator without errors earns most, as
  trying it in the environment tells: about what reranking five could reach;
- **search**: what Monte Carlo tree search in the environment on the test task itself finds best. It
  may undo and retry, so it is no competitor under the same rules, nor a bound.

**Reads**: yes where Q of 5 earns more than *foreign*, and more than the mean Q of the kind of
action (which knows no words), both 95 % intervals of the paired difference above 0. **Chains**:
whole trainings, from cloning to episodes, each with its own seed."""
NOTHING = 1e-9
RIVALS = {  # rival of Q of 5, as `against` names it
    "greedy": "greedy decoding",
    "likely": "the likeliest of 5",
    "script": "the script",
    "demonstrator": "the demonstrator",
}
KNEW = "**Q is not shown to order the commonest kind of pairs better than the agent's own log π**"


def write_results_index(results_dir: str | Path) -> Path:
    """Write ``README.md`` of a results folder, of each run in it, and of its benchmarks.

    From each ``<name>/metrics.json`` and ``manifest.json``.

    Raises:
        QvlibError: the folder holds no run and a README.md of something else, a run's file is not
            readable, or misses what the pages show.
    """
    folder = Path(results_dir)
    folders, page = runs(folder), folder / "README.md"
    if page.exists() and not page.read_text(errors="replace").startswith(TITLE):
        raise QvlibError(
            f"{display_path(page)} is no index of results, which begins with {TITLE!r}, and is "
            "kept; give a folder of results"
        )
    origins = {run: origin_of(run) for run in folders}
    for run in folders:
        write_run_page(run, origins[run])
    told = {run: read_metrics(run) for run in folders if not is_plumbing(run.name)}
    parts = [HEAD]
    if told:
        notes = run_notes(told)
        rows = [_row(run, metrics, notes[run]) for run, metrics in told.items()]
        head = ["run", *COLUMNS, "reads", "chains", "tasks"]
        parts += [table(head, rows), TERMS, *_pictures(list(told))]
        parts += _not_shown(told)
    parts += _runs(told, origins) if folders else ["No runs yet."]
    parts += _plumbing([run for run in folders if is_plumbing(run.name)])
    parts += _benchmarks(folder)
    return write_atomic(folder / "README.md", "\n\n".join(parts) + "\n")


def _row(run: Path, metrics: Metrics, notes: Sequence[str]) -> list[str]:
    """A run in the first table; ``notes``: of ``run_notes``."""
    try:
        arms = metrics["arms"]
        cells = [_cell(arms.get(arm), _bounded(arm, metrics)) for arm in COLUMNS.values()]
        iterations = metrics.get("search_iterations")
        if "search" in arms and iterations is not None:
            cells[list(COLUMNS).index("search")] += f"<br>{iterations} iterations"
        tasks = next((row["tasks"] for row in arms.values()), "")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise misstated(run / "metrics.json", error) from None
    told = [READS.get(metrics.get("reads"), ""), str(metrics["chains"]), str(tasks)]
    name = f"[`{run.name}`]({quote(run.name)}/README.md)"
    return [name + "".join(f"<br>{note}" for note in notes), *cells, *told]


def _bounded(arm: str, metrics: Metrics) -> bool:
    """Whether the interval of an arm's mean is one.

    That of the null is none in older runs, which averaged opposite shuffles: their luck cancels.
    """
    return COLUMNS["null"] != arm or bool(metrics.get("null"))


def _cell(row: Mapping[str, Any] | None, bounded: bool) -> str:
    if not row:
        return ""
    bounds = interval(*(row["ci95"] if bounded else (None, None)), ".2f")
    return f"{row['reward_mean']:.3f}" + (f"<br>{bounds}" if bounds else "")


def _pictures(folders: Sequence[Path]) -> list[str]:
    """The two pictures a reader must see: whether Q reads, and what the gain depends on.

    Curves of a grid are shown of runs whose report also draws ``reads``: in those of older code one
    axis hides the curves.
    """
    drawn = [run for run in folders if _picture(run, "reads").exists()]
    wanted = [
        ("Does Q read?", "reads", folders),
        ("What the gain depends on", "grid_curves", drawn),
        ("What reranking gains, beside its controls", "gains", folders),
        ("What each scoring rule gains, beside its control", "scoring_rules", folders),
    ]
    found = []
    for caption, name, among in wanted:
        run = next((run for run in among if _picture(run, name).exists()), None)
        if run:
            address = url(_picture(run, name), run.parent)
            found.append(f"{caption} (`{run.name}`)\n\n![{caption}]({address})")
    return found[:2]


def _picture(run: Path, name: str) -> Path:
    return run / "figures" / f"{name}.png"


def _not_shown(told: Mapping[Path, Metrics]) -> list[str]:
    """What the runs do not show, each by the numbers that would show it."""
    held: dict[str, list[str]] = {}
    for run, metrics in told.items():
        try:
            doubts = _doubts(metrics)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise misstated(run / "metrics.json", error) from None
        for doubt, note in doubts.items():
            names = held.setdefault(doubt, [])
            if note is not None:
                names.append(f"`{run.name}`{note}")
    lines = [
        f"- {doubt}: {'every run' if 1 < len(told) == len(names) else ', '.join(names)}."
        for doubt, names in held.items()
        if names
    ]
    return ["## What is not shown", "\n".join(lines)] if lines else []


def _doubts(metrics: Metrics) -> dict[str, str | None]:
    """What might not be shown, in the order of the page -> a note where it is not, else None."""
    gain = (metrics.get("gains") or {}).get("q_n5")
    p = (metrics.get("null") or {}).get("rank_p")
    beyond = (metrics.get("null") or {}).get("mean")
    reads, splits = metrics.get("reads"), metrics.get("splits")
    often = p is not None and p > 0.05
    few = often and p <= 1.001 * least_rank(metrics)
    holds = {
        "**One chain**, so that no interval covers the luck of training": metrics["chains"] == 1,
        "**No gain over one sample** is shown with Q of 5": gain and not _above(gain),
        "**That Q reads** is not shown": reads is False,
        "**Whether Q reads** is not tested": reads is None,
        "**Shuffled labels** gain as much too often (rank p above 0.05)": often and not few,
        "**Too few shuffles** of the labels for a rank p of 0.05; none gains as much": often
        and few,
        "**Single shuffles** of the labels are not told": p is None
        and not metrics.get("control_shuffles"),
        "**Too few shuffles** of the labels, or opposite ones, to be ranked": p is None
        and metrics.get("control_shuffles"),
        "**Q of 5 is not shown to earn more than its shuffles**": beyond and not _above(beyond),
        KNEW: kinds.adds_to_agent(metrics.get("accuracy_by_kind") or {}) is False,
        f"**Fewer than {FEW_GROUPS} groups of tasks**, too few for an interval": splits
        and splits[-1]["groups"] < FEW_GROUPS,
    }
    doubts: dict[str, str | None] = {doubt: "" if holds[doubt] else None for doubt in holds}
    for rival, name in RIVALS.items():
        entry = _against(metrics, rival)
        less = f"**Q of 5 is not shown to earn more than {name}**"
        doubts[less] = None
        if entry and not _above(entry):
            doubts[less] = " (it earns less)" if entry["ci95"][1] < -NOTHING else ""
        doubts[f"**Q of 5 is not compared with {name}**"] = None if entry else ""
    return doubts


def _above(entry: Mapping[str, Any]) -> bool:
    """Whether the interval of a difference lies above zero, sums of floats being what they are."""
    return bool(entry["ci95"][0] > NOTHING)


def _against(metrics: Metrics, rival: str) -> Mapping[str, Any] | None:
    """Q of 5 minus a rival; of greedy decoding older runs tell it elsewhere."""
    entry = ((metrics.get("against") or {}).get("q_n5") or {}).get(rival)
    if entry is None and rival == GREEDY:
        entry = (metrics.get("gains_over_greedy") or {}).get("q_n5")
    return entry


def _runs(told: Mapping[Path, Metrics], origins: Mapping[Path, Origin]) -> list[str]:
    """The runs with the links to their pages, and how old they are."""
    rows = []
    for run, metrics in told.items():
        report = run / "html" / "07_report.html"
        links = [f"[page]({quote(run.name)}/README.md)"]
        links += [f"[report]({url(report, run.parent)})"] if report.exists() else []
        origin = origins[run]
        rows.append(
            [
                f"`{run.name}`",
                str(metrics.get("environment", "")),
                origin.finished[:10],
                origin.code,
                ", ".join(links),
            ]
        )
    if not rows:
        return []
    return [
        "## Runs",
        table(["run", "world", "rendered", "code", "more"], rows),
        "Numbers, notebooks and figures of a run are those of the code at its commit; commits to "
        f"{' and '.join(CODE)} since are counted.",
    ]


def _plumbing(folders: Sequence[Path]) -> list[str]:
    if not folders:
        return []
    links = ", ".join(f"[`{run.name}`]({quote(run.name)}/README.md)" for run in folders)
    return [
        "## That all parts work",
        f"Notebooks once, as small as it goes, which says nothing about the method: {links}.",
    ]


def _benchmarks(folder: Path) -> list[str]:
    """Links to what ``qvlib bench NAME --save`` kept, which gets a page; nothing without any."""
    pages = [path for path in sorted((folder / "bench").glob("*.md")) if path.stem != "README"]
    if not pages:
        return []
    parts = ["# Benchmarks", "[All results](../README.md)"]
    for path in pages:
        parts += [f"## {path.stem}", path.read_text().strip()]
        if path.with_suffix(".png").exists():
            parts.append(f"![{path.stem}]({quote(path.stem)}.png)")
    write_atomic(folder / "bench" / "README.md", "\n\n".join(parts) + "\n")
    names = ", ".join(f"[{path.stem}](bench/{quote(path.name)})" for path in pages)
    return ["## Benchmarks", f"[All on one page](bench/README.md): {names}."]
