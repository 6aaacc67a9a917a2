"""The front page of the results folder: one section a run, from its metrics and manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import display_path
from qvlib.base.terminal import format_duration
from qvlib.report import sentences


def write_results_index(results_dir: str | Path) -> Path:
    """Write ``README.md`` of a results folder from each ``<name>/metrics.json`` and ``manifest.json``.

    Raises:
        QvlibError: a run's file is not readable, or misses what the table shows.
    """
    folder = Path(results_dir)
    runs = _runs(folder)
    sections = [_section(run) for run in runs if not _is_plumbing(run.name)]
    for run in filter(lambda run: _is_plumbing(run.name), runs):
        compared = (
            " The tests execute it again and compare what is printed."
            if run.name == PLUMBING
            else ""
        )
        sections.append(
            f"## {run.name}\n\nEvery notebook once, as small as it goes: shows that all parts work, and says nothing "
            f"about the method.{compared}\n\n{_links(run)}"
        )
    head = (
        "# Results\n\nWritten by `qvlib index` from the runs' own files; rewards are terminal rewards in [0, 1]. The notebooks of a run are "
        "as they stood at the commit that it names; later wording may differ."
    )
    parts = [head, *_first_sight(runs), *(sections or ["No runs yet."]), *_benchmarks(folder)]
    return write_atomic(folder / "README.md", "\n\n".join(parts) + "\n")


def _runs(folder: Path) -> list[Path]:
    """The folders of the runs, those that say most first."""
    found = [path.parent for path in folder.glob("*/metrics.json")]
    return sorted(
        found, key=lambda run: (RANK.index(run.name) if run.name in RANK else len(RANK), run.name)
    )


def _first_sight(runs: Sequence[Path]) -> list[str]:
    """The two figures a reader must see: what reranking gains beside its controls, and what the gain depends on."""
    lines = []
    for names, words in (
        (("gains",), "What reranking gains, beside its controls"),
        (("grid_curves", "scoring_rules"), "What the gain depends on"),
    ):
        found = next(
            (
                run / "figures" / f"{name}.png"
                for name in names
                for run in runs
                if not _is_plumbing(run.name) and (run / "figures" / f"{name}.png").exists()
            ),
            None,
        )
        if found:
            run = found.parents[1]
            lines.append(f"{words} (`{run.name}`):\n\n![{words}]({_url(found, run)})")
    return lines


SHOWN = (
    "sample",
    "greedy",
    "random_n5",
    "likely_n5",
    "rft",
    "q_n5",
    "q_n10",
    "tuned_policy",
    "control_q_n5",
    "control_q_n10",
    "mcts",
    "best_of_n",
)
FIGURE = "reward_by_arm"
RANK = ("full", "quick", "ablations", "webshop-small")
PLUMBING = "smoke"


def _is_plumbing(name: str) -> bool:
    """Whether a run shows that the parts work and nothing else: ``smoke``, and ``<world>-smoke``."""
    return name == PLUMBING or name.endswith(f"-{PLUMBING}")


def write_front_page(readme: str | Path, results_dir: str | Path, run: str = "quick") -> Path:
    """Write a run's table and figure, the times and the list of notebooks between the markers of the project's README.

    The times of the two commands are those that ``.ci/fresh`` measured, in ``times.json`` of the results folder.

    Raises:
        QvlibError: the run has no results, or the README no markers.
    """
    readme, folder = Path(readme), Path(results_dir) / run
    metrics, manifest = _read(folder / "metrics.json"), _read(folder / "manifest.json")
    measured = Path(results_dir) / "times.json"
    others = [
        _read(run / "metrics.json")
        for run in _runs(Path(results_dir))
        if run != folder and not _is_plumbing(run.name) and run.name != "ablations"
    ]
    blocks = {
        "result": "\n\n".join([_headline(metrics, folder, readme.parent), *map(_one_line, others)]),
        "files": _parameter_files(readme.parent, Path(results_dir)),
        "times": _times(manifest, _read(measured) if measured.exists() else None),
        "notebooks": _notebooks(manifest, folder, readme.parent),
    }
    text = readme.read_text()
    for name, content in blocks.items():
        found = re.search(
            rf"(<!-- {name}: begin[^\n]*-->\n).*?(<!-- {name}: end -->)", text, re.DOTALL
        )
        if not found:
            raise QvlibError(
                f"{display_path(readme)} has no lines <!-- {name}: begin --> and <!-- {name}: end -->; restore them"
            )
        text = text[: found.end(1)] + content + "\n" + text[found.start(2) :]
    return write_atomic(readme, text)


def _headline(metrics: Mapping[str, Any], folder: Path, base: Path) -> str:
    shown_arms = {arm: metrics["arms"][arm] for arm in SHOWN if arm in metrics["arms"]}
    lines = [
        "| arm | mean reward | 95 % | gain over one sample | 95 % | relative | success |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, row in shown_arms.items():
        gain = metrics["gains"].get(arm)
        cells = [f"`{arm}`", f"{row['reward_mean']:.3f}", _interval(row["ci95"])]
        cells += (
            [f"{gain['mean']:+.3f}", _interval(gain["ci95"], "+"), _relative(gain, 0)]
            if gain
            else [""] * 3
        )
        lines.append("| " + " | ".join([*cells, f"{row['success_rate']:.1%}"]) + " |")
    tasks = next(iter(shown_arms.values()))["tasks"]
    image = (folder / "figures" / f"{FIGURE}.png").relative_to(base).as_posix()
    seeds, groups = (
        metrics.get("seeds", [metrics.get("seed", 0)]),
        metrics.get("groups", "products"),
    )
    note = (
        f"`{metrics['run']}`: {tasks} held-out tasks on unseen {groups}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}, terminal "
        f"reward in [0, 1], paired by task, bootstrap intervals over {groups}{' and seeds' * (len(seeds) > 1)}. All arms draw through the "
        "same filter of refused and no-effect actions."
    )
    arms = (
        "What is executed at each step: `sample`, one sampled action; `greedy`, the most likely; `random_n5` and `likely_n5`, of five samples "
        "a random one and the likeliest; `q_n5` and `q_n10`, of five or ten the one with the highest Q; `tuned_policy`, a sample of the "
        "tuned model itself. `control` is the same Q training with winners drawn by coins, the mean of its shuffles, every second the "
        "opposite of the one before: a single one gains or loses by luck ([each is listed](results/README.md)). `mcts` searches with the "
        "environment at test time, an upper bound."
    )
    found = [
        note,
        "",
        *lines,
        "",
        arms,
        "",
        f"![Mean reward by arm, with 95 % intervals]({quote(image)})",
    ]
    second = metrics.get("other_agent_gain")
    if second and second["relative"] is not None:
        found[1:1] = [
            "",
            f"A second agent, of another size and other demonstrations, gains {second['mean']:+.3f} "
            f"{_interval(second['ci95'], '+')} ({second['relative']:+.0%}) over its own sample from the same Q model.",
        ]
    return "\n".join(found)


def _one_line(metrics: Mapping[str, Any]) -> str:
    arms = metrics["arms"]
    reranked = (
        f"{arms[f'q_n{n}']['reward_mean']:.3f} reranked with n = {n} ({gain['mean']:+.3f} {_interval(gain['ci95'], '+')})"
        for n, gain in ((n, metrics["gains"][f"q_n{n}"]) for n in (5, 10))
    )
    return (
        f"`{metrics['run']}` ([all results](results/README.md)): {sentences.claim(metrics)} Mean reward "
        f"{arms['sample']['reward_mean']:.3f} sampled once, {', '.join(reranked)}."
    )


def _notebooks(manifest: Mapping[str, Any], folder: Path, base: Path) -> str:
    lines = ["| notebook | question | time | rendered |", "|---|---|---|---|"]
    for name, seconds in manifest["notebooks"].items():
        rendered = folder / "notebooks" / f"{name}.ipynb"
        first = "".join(_read(rendered)["cells"][0]["source"])
        question = " ".join(
            re.search(r"\*\*Question\.\*\*(.*?)(?:\n\n|$)", first, re.DOTALL)[1].split()
        )
        lines.append(
            f"| [{name}](notebooks/{name}.ipynb) | {question} | {format_duration(seconds)} | "
            f"[notebook]({quote(rendered.relative_to(base).as_posix())}) |"
        )
    return "\n".join(lines)


def _parameter_files(root: Path, results: Path) -> str:
    """The parameter files with what they say of themselves and what their committed run took."""
    lines = [
        "| parameter file | what | committed run: wall time, some beside other work |",
        "|---|---|---|",
    ]
    known = {path.stem: path for path in (root / "params").glob("*.yml")}
    for name in sorted(
        known,
        key=lambda n: (
            n != PLUMBING,
            _is_plumbing(n),
            RANK.index(n) if n in RANK else len(RANK),
            n,
        ),
    ):
        head = [
            line[2:]
            for line in known[name].read_text().split("\n\n")[0].splitlines()
            if line.startswith("# ")
        ]
        took = "not run here"
        if (results / name / "manifest.json").exists():
            manifest = _read(results / name / "manifest.json")
            machine = manifest.get("machine", {})
            where = machine.get("gpu") or f"{machine.get('cpus', '?')} cores"
            peak = manifest.get("peak_memory_gib", {})
            memory = [
                f"{peak[kind]:.1f} GiB {of}"
                for kind, of in (("process", "a process"), ("gpu", "of the GPU"))
                if kind in peak
            ]
            took = ", ".join([f"{format_duration(manifest['seconds'])} on {where}", *memory])
        lines.append(
            f"| [`params/{name}.yml`](params/{name}.yml) | {' '.join(head).split('. ')[0].rstrip('.:')} | {took} |"
        )
    return "\n".join(lines)


def _times(manifest: Mapping[str, Any], measured: Mapping[str, Any] | None) -> str:
    cpus = manifest.get("machine", {}).get("cpus", "?")
    lines = [
        f"The notebooks of `{manifest['name']}` alone took {format_duration(manifest['seconds'])} on {cpus} cores."
    ]
    if measured:
        commands = ", ".join(
            f"`make {name}` {format_duration(measured[name])}"
            for name in ("run", "test")
            if name in measured
        )
        lines.insert(
            0,
            f"Measured in a fresh clone on {measured['cpus']} cores, installation included (`.ci/fresh`): {commands}.",
        )
    return " ".join(lines)


def _section(run: Path) -> str:
    metrics = _read(run / "metrics.json")
    manifest = _read(run / "manifest.json") if (run / "manifest.json").exists() else {}
    try:
        parts = [f"## {metrics['run']}", _origin(manifest), _words(metrics), _arms(metrics)]
    except (KeyError, TypeError, ValueError) as error:
        raise QvlibError(
            f"{display_path(run / 'metrics.json')} misses or misstates {error}; "
            "run notebooks/07_report.ipynb again"
        ) from None
    if metrics.get("cost"):
        costs = (f"{k.replace('_', ' ')} {_number(v)}" for k, v in metrics["cost"].items())
        parts.append(f"Cost: {', '.join(costs)}.")
    parts += [_links(run), _figures(run)]
    return "\n\n".join(filter(None, parts))


def _benchmarks(folder: Path) -> list[str]:
    """What ``qvlib bench NAME --save`` kept; nothing where it kept nothing."""
    parts = []
    for path in sorted((folder / "bench").glob("*.md")):
        parts += [f"### {path.stem}", path.read_text().strip()]
        if path.with_suffix(".png").exists():
            parts.append(f"![{path.stem}](bench/{quote(path.stem)}.png)")
    return ["## Benchmarks", *parts] if parts else []


def _words(metrics: Mapping[str, Any]) -> str:
    """What the run shows, as its report says it."""
    if "preferences" not in metrics:  # not from 07_report
        return ""
    return "\n\n".join(
        [
            sentences.claim(metrics),
            sentences.verdict(metrics),
            sentences.accuracy(metrics["preferences"]),
        ]
    )


def _origin(manifest: Mapping[str, Any]) -> str:
    if not manifest:
        return ""
    git, machine = manifest.get("git"), manifest.get("machine", {})
    code = f"commit `{git['commit'][:10]}`" if git else "no commit known"
    code += " with uncommitted changes" if git and git["dirty"] else ""
    where = (
        f"{machine.get('cpus', '?')} processors, {machine.get('gpu') or machine.get('device', '?')}"
    )
    took = format_duration(manifest.get("seconds", 0))
    return f"{manifest.get('finished', '?')}, {code}, {where}, notebooks took {took}."


def _arms(metrics: Mapping[str, Any]) -> str:
    gains, over_greedy = metrics.get("gains", {}), metrics.get("gains_over_greedy", {})
    lines = [
        "| arm | reward | 95 % | success | gain | 95 % | relative | over greedy | tasks | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, row in metrics["arms"].items():
        gain, greedy = gains.get(arm), over_greedy.get(arm)
        if arm.startswith(
            "other_agent"
        ):  # another agent: its gain is over its own sample, and stands above
            gain = greedy = None
        cells = [
            arm,
            f"{row['reward_mean']:.3f}",
            _interval(row["ci95"]),
            f"{row['success_rate']:.1%}",
        ]
        if gain:
            cells += [f"{gain['mean']:+.3f}", _interval(gain["ci95"], "+"), _relative(gain, 1)]
        else:
            cells += [""] * 3
        cells += [
            f"{greedy['mean']:+.3f}" if greedy else "",
            str(row["tasks"]),
            _count(row["seeds"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _relative(gain: Mapping[str, Any], digits: int) -> str:
    """Relative to the baseline; empty where that earned nothing."""
    return "" if gain["relative"] is None else f"{gain['relative']:+.{digits}%}"


def _links(run: Path) -> str:
    notebooks = sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    links = []
    for path in notebooks:
        html = run / "html" / f"{path.stem}.html"
        extra = f" ([HTML]({_url(html, run)}))" if html.exists() else ""
        links.append(f"[{path.stem}]({_url(path, run)}){extra}")
    return "Notebooks: " + ", ".join(links) if links else ""


def _figures(run: Path) -> str:
    return "\n".join(
        f"![{path.stem}]({_url(path, run)})" for path in sorted((run / "figures").glob("*.png"))
    )


def _url(path: Path, run: Path) -> str:
    return quote(path.relative_to(run.parent).as_posix())


def _interval(bounds: Any, sign: str = "") -> str:
    low, high = bounds
    return f"[{low:{sign}.3f}, {high:{sign}.3f}]"


def _count(seeds: Any) -> str:
    return str(len(seeds) if isinstance(seeds, list) else seeds)


def _number(value: Any) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise QvlibError(
            f"{display_path(path)} is unreadable ({type(error).__name__}); "
            "run notebooks/07_report.ipynb again"
        ) from None
    if not isinstance(value, dict):
        raise QvlibError(
            f"{display_path(path)} is not a mapping; run notebooks/07_report.ipynb again"
        )
    return value
