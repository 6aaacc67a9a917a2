"""The page of one run, ``results/<run>/README.md``, from its metrics and manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import display_path, project_root
from qvlib.base.terminal import format_duration
from qvlib.pipeline.params import RunSettings, load
from qvlib.report import sentences
from qvlib.report.formats import difference, interval, number, relative, signed
from qvlib.report.results_files import PLUMBING, is_plumbing, read, read_metrics, url
from qvlib.report.sentences import two_by_two
from qvlib.report.sentences.gains import listed
from qvlib.runs.provenance import commits_since

CODE = ("qvlib", "notebooks")  # what decides what a run shows, beside its parameters
WHERE = {name for name in RunSettings.names() if not RunSettings.decides(name)} - {"seeds"}
"""Parameters that say where and how a run works, not what it is."""
READS = {True: "yes", False: "not shown"}  # whether Q reads, in a table
RIVALS = {  # what Q is compared with, as `against` of the metrics names it
    "foreign": "Q told another task's instruction",
    "kind_only": "the mean Q of the kind of action",
    "within_kind": "Q within the kind of the first draw",
    "likely": "the likeliest of the same draws",
    "greedy": "greedy decoding",
    "script": "the script",
    "demonstrator": "the demonstrator",
    "oracle": "the oracle of the same draws",
}
STUDIES = {"value_search": "Searching by values", "baselines": "Arms at one budget"}
"""Tables of studies that a page shows, each with its answer beneath: name -> title."""
EFFECTS = "regression_effects"
"""The table of the study of preferences against regression, whose answer a page tells first."""


@dataclass(frozen=True)
class Origin:
    """When, where, by which code a run was rendered, and how old that code is."""

    finished: str  # date and time; empty where no manifest tells
    code: str  # one phrase: commit and age
    says: str  # all of it, in sentences


def write_run_page(run: Path, origin: Origin | None = None) -> Path:
    """Write ``README.md`` of a run's folder.

    Raises:
        QvlibError: a file of the run is not readable, or misses what the page shows.
    """
    told = origin or origin_of(run)
    head = [f"# {run.name}", "[All results](../README.md)", told.says]
    if is_plumbing(run.name):
        again = (
            " The tests execute it again and compare what is printed."
            if run.name == PLUMBING
            else ""
        )
        note = (
            "Notebooks once, as small as it goes: shows that all parts work, and says nothing "
            f"about the method.{again}"
        )
        parts = [*head, note, _links(run)]
    else:
        parts = [*head, *_details(run), _links(run), _figures(run)]
    return write_atomic(run / "README.md", "\n\n".join(filter(None, parts)) + "\n")


def misstated(path: Path, error: Exception) -> QvlibError:
    """What is said of a run's metrics that miss or misstate what a page shows."""
    return QvlibError(
        f"{display_path(path)} misses or misstates {error}; run notebooks/07_report.ipynb again"
    )


def origin_of(run: Path) -> Origin:
    """Where a run comes from, as its manifest tells.

    Raises:
        QvlibError: the manifest is not readable, or misses what is told of it.
    """
    path = run / "manifest.json"
    if not path.exists():
        return Origin("", "", "")
    manifest = read(path)
    git, machine = manifest.get("git"), manifest.get("machine", {})
    try:
        commit = f"`{git['commit'][:10]}`" if git else ""
        dirty = " with uncommitted changes" if git and git["dirty"] else ""
        device = machine.get("gpu") or machine.get("device", "?")
        took = format_duration(manifest.get("seconds", 0))
        short, age = _age(git["commit"] if git else "")
    except (AttributeError, KeyError, TypeError) as error:
        raise QvlibError(
            f"{display_path(path)} misses or misstates {error}; run `qvlib run` again"
        ) from None
    finished = str(manifest.get("finished", "?"))
    code = f"commit {commit}{dirty}" if git else "no commit known"
    return Origin(
        finished,
        f"{commit}{dirty}, {short}" if git else "not known",
        f"{finished}, {code}, {machine.get('cpus', '?')} processors, {device}, "
        f"notebooks took {took}{_command(manifest)}. {age}",
    )


def _command(manifest: Mapping[str, Any]) -> str:
    """``, by `qvlib run params/full.yml```, where the project has that file."""
    file = f"params/{manifest.get('name')}.yml"
    if not (project_root() / file).exists():
        return ""
    now, then = load(project_root() / file).flat(), manifest.get("parameters", {})
    known = [name for name in now if name in then and name not in WHERE]
    changed = [name for name in known if now[name] != then[name]]
    return f", by `qvlib run {file}`" + (
        f", since changed in {listed([f'`{name}`' for name in changed])}" if changed else ""
    )


def _age(commit: str) -> tuple[str, str]:
    """How many changes of the code a run does not have: a phrase, and a sentence."""
    found = commits_since(commit, CODE)
    if found is None:
        return "age not known", "How old that code is, this copy of qvlib does not tell."
    count, last = found
    if not count:
        return "the same today", f"The code is the same today (`{last[:10]}`)."
    changes = f"{count} commit{'s' * (count != 1)}"
    return f"{changes} behind", (
        f"**Rendered by older code**: {changes} to {' or '.join(CODE)} "
        f"came after it, up to `{last[:10]}`."
    )


def _details(run: Path) -> list[str]:
    """What the run shows, in words and tables; what its metrics do not tell is left out."""
    metrics = read_metrics(run)
    try:
        return [
            *_claims(metrics),
            _arms(metrics),
            *_against(metrics),
            *_null(metrics),
            *_estimators(metrics),
            *_studies(run),
            *_grid(run),
            *_by_kind(metrics.get("accuracy_by_kind") or {}),
            *_parts(metrics.get("parts") or {}),
            *_costs(metrics.get("cost") or {}),
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise misstated(run / "metrics.json", error) from None


def _claims(metrics: Mapping[str, Any]) -> list[str]:
    """What the run shows, as its report says it."""
    parts = []
    if metrics.get("primary"):
        parts.append(f"Compared first, as the parameter file names it: {metrics['primary']}")
    if "preferences" in metrics:  # else not from 07_report
        parts += [
            sentences.claim(metrics),
            sentences.verdict(metrics),
            sentences.accuracy(metrics["preferences"]),
            sentences.limits(metrics),
        ]
    return parts


def _arms(metrics: Mapping[str, Any]) -> str:
    gains, over_greedy = metrics.get("gains", {}), metrics.get("gains_over_greedy", {})
    rows = []
    for arm, row in metrics["arms"].items():
        gain, greedy = gains.get(arm), over_greedy.get(arm)
        if arm.startswith("other_agent"):  # its gain is over its own sample, and stands above
            gain = greedy = None
        seeds = row["seeds"]
        # Older runs averaged opposite shuffles before their interval.
        coins = arm.startswith("control") and not metrics.get("null")
        rows.append(
            [
                arm,
                f"{row['reward_mean']:.3f}",
                "" if coins else interval(*row["ci95"]),
                sentences.success(row),
                *([signed(gain["mean"]), "", ""] if coins and gain else gain_cells(gain, 1)),
                signed(greedy["mean"]) if greedy else "",
                str(row["tasks"]),
                str(len(seeds) if isinstance(seeds, list) else seeds),
            ]
        )
    head = "arm reward 95_% success gain 95_% relative over_greedy tasks seeds"
    made = table([name.replace("_", " ") for name in head.split()], rows)
    told = metrics.get("search_iterations")
    return f"{made}\n\n`search`: {told} iterations a task." if told is not None else made


def gain_cells(gain: Mapping[str, Any] | None, places: int) -> list[str]:
    """A paired gain, its interval, and the gain relative to the baseline; empty where none is."""
    if not gain:
        return [""] * 3
    bounds = gain.get("relative_ci95")
    return [
        signed(gain["mean"]),
        interval(*gain["ci95"], "+.3f"),
        relative(gain["relative"], places)
        + (f" {interval(*bounds, f'+.{places}%')}" if bounds else ""),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; each row has a cell a column."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    lines.insert(1, f"|{'---|' * len(head)}")
    return "\n".join(lines)


def paired(entry: Mapping[str, Any] | None) -> str:
    """A difference with its interval; empty where none is."""
    return difference(entry["mean"], *entry["ci95"]) if entry else ""


def _against(metrics: Mapping[str, Any]) -> list[str]:
    told = metrics.get("against") or {}
    arms = [arm for arm in ("q_n5", "q_n10") if told.get(arm)]
    if not arms:
        return []
    rivals = [rival for rival in RIVALS if any(rival in told[arm] for arm in arms)]
    rows = [[RIVALS[rival], *(paired(told[arm].get(rival)) for arm in arms)] for rival in rivals]
    reads = {True: "Q reads.", False: "It is not shown that Q reads."}.get(
        metrics.get("reads"), "Whether Q reads was not tested."
    )
    return [
        "## Q against what could explain its gain",
        table(["Q minus", *(f"n = {arm.removeprefix('q_n')}" for arm in arms)], rows),
        f"Reward of Q minus the other's, paired by task. By the first two rows at n = 5: {reads}",
    ]


def _null(metrics: Mapping[str, Any]) -> list[str]:
    """Each Q model of shuffled labels, and where Q stands among them."""
    lines, null = [], metrics.get("null") or {}
    for n, told in ((5, null), (10, null.get("n10") or {})):
        if not told.get("shuffles"):
            continue
        line = f"n = {n}: {', '.join(map(signed, told['shuffles']))}"
        if told.get("rank_p") is not None:
            line += f"; rank p {told['rank_p']:.3f}"
        if told.get("mean"):
            line += f"; Q minus them {paired(told['mean'])}"
        lines.append(f"- {line}.")
    if not lines:
        return []
    return [
        "## Shuffled labels",
        "What each Q model gains over one sample that was fitted to shuffled labels (each pair's "
        "winner drawn by a coin; a value head's values dealt anew):",
        "\n".join(lines),
    ]


def _estimators(metrics: Mapping[str, Any]) -> list[str]:
    """Estimators compared on the run's trees, where it compares any."""
    entries = metrics.get("estimators") or {}
    if not entries:
        return []
    rows = [
        [
            name,
            f"{entry['reward_mean']:.3f}",
            paired(entry["gain"]),
            paired(entry["null"].get("mean")),
            paired(entry["against"].get("foreign")),
            paired(entry["against"].get("kind_only")),
            paired(entry["against"].get("likely")),
            paired(entry.get("minus_published")),
            entry["tuned_on"]["chosen"],
        ]
        for name, entry in sorted(entries.items(), key=lambda item: -item[1]["gain"]["mean"])
    ]
    less = (
        "its controls",
        "foreign instruction",
        "mean of the kind",
        "likeliest of 5",
        "published form",
    )
    head = ["estimator", "reward", "gain", *(f"less {rival}" for rival in less), "chosen on dev"]
    default = (
        "Settings of each were chosen on dev tasks; `q_n5` above has the run's own, so that it may "
        "differ from the line of its estimator."
    )
    said = sentences.compared(metrics)
    return ["## Estimators on the same trees", default, table(head, rows), said]


def _studies(run: Path) -> list[str]:
    """The table of each study that the run played, and the answer beneath it."""
    parts = []
    for name, title in STUDIES.items():
        path = run / "tables" / f"{name}.md"
        if path.exists():
            parts += [f"## {title}", path.read_text().strip()]
    rows, shown = effect_rows(run), run / "tables" / f"{EFFECTS}.md"
    if rows and shown.exists():
        about = f"Each method is tried on {tried_on(grid_rows(run))}."
        answer = two_by_two.conclusion(rows)
        parts += ["## Preferences or regression", about, answer, shown.read_text().strip()]
    return parts


def effect_rows(run: Path) -> list[dict[str, Any]]:
    """The effects that the study of preferences against regression found; none where it is not.

    Raises:
        QvlibError: its file is not readable, or misses what the pages show.
    """
    path = run / "tables" / f"{EFFECTS}.csv"
    if not path.exists():
        return []
    bounds = [f"{name}{end}" for name in ("mean", "change") for end in ("", "_low", "_high")]
    try:
        rows = pd.read_csv(path)[["condition", "effect", *bounds]].to_dict("records")
    except (KeyError, ValueError) as error:
        raise misstated(path, error) from None
    return [{str(name): value for name, value in row.items()} for row in rows]


def grid_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of the run's grid of choices, the run itself first; none where it has no grid.

    Raises:
        QvlibError: its file is not readable, or misses what the pages show.
    """
    path = run / "tables" / "grid.csv"
    if not path.exists():
        return []
    try:
        told = pd.read_csv(path, dtype={"failed": str}).fillna({"failed": ""})
        shown = told[["axis", "choice", "change", "change_low", "change_high", "tasks", "groups"]]
    except (KeyError, ValueError) as error:
        raise misstated(path, error) from None
    known = {"chains": 1, "failed": ""} | {n: told[n] for n in ("chains", "failed") if n in told}
    return [{str(n): v for n, v in row.items()} for row in shown.assign(**known).to_dict("records")]


def tried_on(rows: Sequence[Mapping[str, Any]]) -> str:
    """``300 dev tasks and 1 chain``: what the cells of a grid were tried on."""
    tasks, chains = int(rows[0]["tasks"]), int(rows[0]["chains"])
    return f"{tasks} dev tasks and {chains} chain{'s' * (chains != 1)}"


def _grid(run: Path) -> list[str]:
    """What the run's grid of choices found, and its table."""
    rows, shown = grid_rows(run), run / "tables" / "grid.md"
    if not rows or not shown.exists():
        return []
    return [
        "## Choices",
        f"Each row is the run with one choice changed, on {tried_on(rows)}.",
        sentences.grid(rows),
        shown.read_text().strip(),
    ]


def _by_kind(kinds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            kind,
            _share(row.get("own")),
            interval(*(row.get("ci95") or (None, None)), ".2f"),
            _share(row.get("foreign")),
            _share(row.get("log_pi")),
            number(row.get("pairs", "")),
        ]
        for kind, row in kinds.items()
    ]
    if not rows:
        return []
    head = ["pairs of", "Q", "95 %", "Q, foreign instruction", "log pi of the agent", "pairs"]
    return [
        "## Accuracy by kind of pair",
        table(head, rows),
        "Share of pairs of the test tasks' own searches that are ordered as the search did; "
        "one half is chance.",
    ]


def _parts(parts: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(dict.fromkeys(name for row in parts.values() for name in row))
    if not names:
        return []
    rows = [[arm, *(_share(row.get(name)) for name in names)] for arm, row in parts.items()]
    return [
        "## Reward by its parts",
        table(["arm", *names], rows),
        "Mean share of each part that an arm's episodes reach.",
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _costs(cost: Mapping[str, Any]) -> list[str]:
    told = (f"{what.replace('_', ' ')} {number(amount)}" for what, amount in cost.items())
    return [f"Cost: {', '.join(told)}."] if cost else []


def _links(run: Path) -> str:
    links = []
    for path in sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        html = run / "html" / f"{path.stem}.html"
        extra = f" ([HTML]({url(html, run)}))" if html.exists() else ""
        links.append(f"[{path.stem}]({url(path, run)}){extra}")
    return "Notebooks: " + ", ".join(links) if links else ""


def _figures(run: Path) -> str:
    """All pictures of a run, ``reads`` first."""
    pictures = sorted((run / "figures").glob("*.png"), key=lambda p: (p.stem != "reads", p.stem))
    return "\n".join(f"![{path.stem}]({url(path, run)})" for path in pictures)
