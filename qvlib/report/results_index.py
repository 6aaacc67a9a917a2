"""The index of the results folder: one section a run, from its metrics and manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import display_path
from qvlib.base.terminal import format_duration
from qvlib.report import sentences
from qvlib.report.formats import interval, number, relative, signed
from qvlib.report.results_files import PLUMBING, is_plumbing, read, runs, url
from qvlib.runs.provenance import commits_since

CODE = ("qvlib", "notebooks")  # what decides what a run shows, beside its parameters


def write_results_index(results_dir: str | Path) -> Path:
    """Write ``README.md`` of a results folder.

    From each ``<name>/metrics.json`` and ``manifest.json``.

    Raises:
        QvlibError: a run's file is not readable, or misses what the table shows.
    """
    folder = Path(results_dir)
    folders = runs(folder)
    sections = [_section(run) for run in folders if not is_plumbing(run.name)]
    sections += [_plumbing(run) for run in folders if is_plumbing(run.name)]
    head = (
        "# Results\n\nWritten by `qvlib index` from the runs' own files; rewards are terminal "
        "rewards in [0, 1]. Numbers, notebooks and figures of a run are those of the code at the "
        "commit that it names; how far that is behind the code with which this page was written "
        "is told beside it."
    )
    parts = [head, *_first_sight(folders), *(sections or ["No runs yet."]), *_benchmarks(folder)]
    return write_atomic(folder / "README.md", "\n\n".join(parts) + "\n")


def _first_sight(folders: Sequence[Path]) -> list[str]:
    """The two figures a reader must see.

    What reranking gains beside its controls, and what the gain depends on.
    """
    lines = []
    for names, caption in (
        (("gains",), "What reranking gains, beside its controls"),
        (("grid_curves", "scoring_rules"), "What the gain depends on"),
    ):
        pictures = (
            (run, run / "figures" / f"{name}.png")
            for name in names
            for run in folders
            if not is_plumbing(run.name)
        )
        for run, picture in pictures:
            if picture.exists():
                address = url(picture, run.parent)
                lines.append(f"{caption} (`{run.name}`):\n\n![{caption}]({address})")
                break
    return lines


def _plumbing(run: Path) -> str:
    compared = (
        " The tests execute it again and compare what is printed." if run.name == PLUMBING else ""
    )
    parts = [
        f"## {run.name}",
        _origin(run),
        "Every notebook once, as small as it goes: shows that all parts work, and says nothing "
        f"about the method.{compared}",
        _links(run),
    ]
    return "\n\n".join(filter(None, parts))


def _section(run: Path) -> str:
    metrics = read(run / "metrics.json")
    try:
        parts = [f"## {metrics['run']}", _origin(run), _claims(metrics), _arms(metrics)]
    except (KeyError, TypeError, ValueError) as error:
        raise QvlibError(
            f"{display_path(run / 'metrics.json')} misses or misstates {error}; "
            "run notebooks/07_report.ipynb again"
        ) from None
    if metrics.get("cost"):
        costs = (f"{k.replace('_', ' ')} {number(v)}" for k, v in metrics["cost"].items())
        parts.append(f"Cost: {', '.join(costs)}.")
    parts += [_links(run), _figures(run)]
    return "\n\n".join(filter(None, parts))


def _origin(run: Path) -> str:
    """When, where, by which code a run was rendered, and how old that code is."""
    path = run / "manifest.json"
    if not path.exists():
        return ""
    manifest = read(path)
    git, machine = manifest.get("git"), manifest.get("machine", {})
    try:
        code = f"commit `{git['commit'][:10]}`" if git else "no commit known"
        code += " with uncommitted changes" if git and git["dirty"] else ""
        device = machine.get("gpu") or machine.get("device", "?")
        took = format_duration(manifest.get("seconds", 0))
        age = _age(git["commit"] if git else "")
    except (AttributeError, KeyError, TypeError) as error:
        raise QvlibError(
            f"{display_path(path)} misses or misstates {error}; run `qvlib run` again"
        ) from None
    return (
        f"{manifest.get('finished', '?')}, {code}, {machine.get('cpus', '?')} processors, "
        f"{device}, notebooks took {took}. {age}"
    )


def _age(commit: str) -> str:
    """How many changes of the code a run does not have."""
    found = commits_since(commit, CODE)
    if found is None:
        return "How old that code is, this copy of qvlib does not tell."
    count, last = found
    if not count:
        return f"The code is the same today (`{last[:10]}`)."
    return (
        f"**Rendered by older code**: {count} commit{'s' * (count != 1)} to {' or '.join(CODE)} "
        f"came after it, up to `{last[:10]}`."
    )


def _claims(metrics: Mapping[str, Any]) -> str:
    """What the run shows, as its report says it."""
    if "preferences" not in metrics:  # not from 07_report
        return ""
    return "\n\n".join(
        [
            sentences.claim(metrics),
            sentences.verdict(metrics),
            sentences.accuracy(metrics["preferences"]),
            sentences.limits(metrics),
        ]
    )


def _arms(metrics: Mapping[str, Any]) -> str:
    gains, over_greedy = metrics.get("gains", {}), metrics.get("gains_over_greedy", {})
    lines = [
        "| arm | reward | 95 % | success | gain | 95 % | relative | over greedy | tasks | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, row in metrics["arms"].items():
        gain, greedy = gains.get(arm), over_greedy.get(arm)
        if arm.startswith("other_agent"):  # its gain is over its own sample, and stands above
            gain = greedy = None
        seeds = row["seeds"]
        cells = [
            arm,
            f"{row['reward_mean']:.3f}",
            interval(*row["ci95"]),
            sentences.success(row),
            *gain_cells(gain, 1),
            signed(greedy["mean"]) if greedy else "",
            str(row["tasks"]),
            str(len(seeds) if isinstance(seeds, list) else seeds),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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


def _links(run: Path) -> str:
    links = []
    for path in sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        html = run / "html" / f"{path.stem}.html"
        extra = f" ([HTML]({url(html, run.parent)}))" if html.exists() else ""
        links.append(f"[{path.stem}]({url(path, run.parent)}){extra}")
    return "Notebooks: " + ", ".join(links) if links else ""


def _figures(run: Path) -> str:
    pictures = sorted((run / "figures").glob("*.png"))
    return "\n".join(f"![{path.stem}]({url(path, run.parent)})" for path in pictures)


def _benchmarks(folder: Path) -> list[str]:
    """What ``qvlib bench NAME --save`` kept; nothing where it kept nothing."""
    parts = []
    for path in sorted((folder / "bench").glob("*.md")):
        parts += [f"### {path.stem}", path.read_text().strip()]
        if path.with_suffix(".png").exists():
            parts.append(f"![{path.stem}](bench/{quote(path.stem)}.png)")
    return ["## Benchmarks", *parts] if parts else []
