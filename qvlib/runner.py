"""Runs the notebooks in order, each in its own process, and renders what they show.

A notebook whose rendered copy was made by the same code with the same parameters is
skipped; one that stopped goes on from the finished work in its stages' folders.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.files import hash_of, write_atomic, write_json
from qvlib.base.markup import visible
from qvlib.base.paths import SOURCE, display_path, is_project, project_root, resolve
from qvlib.base.terminal import Forward, format_duration
from qvlib.pipeline import baselines, comparison, grids, tuning
from qvlib.pipeline.notebook import assigned
from qvlib.pipeline.params import TRIAL, Params, load
from qvlib.runs.provenance import code_hash, now, provenance
from qvlib.runs.stage import is_complete, notebook_of, read_stage, seconds_spent

GRID_FROM = "06"
"""The first notebook that shows the grid of ablations, whose file is a parameter by its content."""
STUDIES_FROM = "08"
"""From here on notebooks are studies: a run plays those that its parameter ``studies`` names."""
COMPARISON, BASELINES = "08_estimators", "12_baselines"
"""The studies that compare estimators and arms: of runs that set ``compare`` or ``baselines``, the
files of which are read likewise."""
COMPARING = ((COMPARISON, "compare", comparison), (BASELINES, "baselines", baselines))
"""Those, the parameter of each, and what makes it."""
KERNEL_STARTS = 3
KERNEL_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads make a busy machine many times slower
    "JUPYTER_PREFER_ENV_PATH": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "TQDM_NCOLS": "90",
}
KERNEL_ARGUMENTS = [
    "--IPKernelApp.exec_lines="
    "import qvlib.base.terminal; qvlib.base.terminal.use_text_progress(); del qvlib",
    # else: local sockets are not encrypted; the reply to Ctrl-C could not be sent
    "--IPKernelApp.log_level=50",
]


class NotebookFailed(Exception):
    """A notebook stopped with an error that is not the user's to mend.

    The message is the whole report.
    """


def run(
    params_file: str | Path,
    *,
    only: Sequence[str] | None = None,
    force: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Run the notebooks with the parameters of a file and render them under ``results_dir/<name>``.

    Args:
        only: numbers or names of the notebooks to run, ``["02", "05_evaluate"]``; None = all.
        force: run also what is up to date, over results of other parameters too.
        overrides: parameters instead of the file's.

    Raises:
        QvlibError: wrong parameters or a name that other parameters have (before any kernel
            starts), or a notebook raised one.
        NotebookFailed: a notebook raised anything else.
    """
    params = load(params_file, **(overrides or {}))
    notebooks, files = planned(params, only)
    results = resolve(params.run.results_dir) / params.run.name
    package = code_hash()
    if not force:
        must_be_alike(results, params)
    _check_folders(params, results)
    started = time.monotonic()
    spent: dict[str, float] = {}
    # before any is played, else what one makes for a later one is counted in both
    before = {notebook.stem: _spent(params, notebook.stem) for notebook in notebooks}
    for number, notebook in enumerate(notebooks, start=1):
        label = f"[{number}/{len(notebooks)}] {notebook.stem}"
        shown = {since: told for since, told in files.items() if notebook.stem >= since}
        stamp = {
            "parameters": hash_of([params.flat(), shown], 8),
            "notebook": notebook_hash(notebook),
            "package": package,
        }
        worked = not force and has_worked(params, notebook.stem)
        known = up_to_date(results, notebook.stem, stamp) if worked else None
        if known is not None:
            spent[notebook.stem] = known
            print(f"{label}: up to date", flush=True)
            continue
        print(label, flush=True)
        begun = time.monotonic()
        there = _written(results)
        executed = execute(notebook, _given(params, notebook))
        spent[notebook.stem] = round(before[notebook.stem] + time.monotonic() - begun, 1)
        stamp |= {"seconds": spent[notebook.stem], "files": _made_since(results, there)}
        render(executed, results, notebook.stem, stamp)
        print(f"{label}: {format_duration(spent[notebook.stem])}", flush=True)
    if only is None:
        _write_manifest(results, params, spent)
    _report(results, time.monotonic() - started)


def _check_folders(params: Params, results: Path) -> None:
    """What is wrong with a folder that a run writes into is told before any work is done.

    Raises:
        QvlibError: one could not be made, is a file, or may not be written into.
    """
    where = params.run
    wanted = {"results_dir": where.results_dir, "runs_dir": where.runs_dir, "name": str(results)}
    for parameter, name in wanted.items():
        folder = resolve(name)
        if why := _hindrance(folder):
            raise QvlibError(
                f"{display_path(folder)} cannot hold a run: {why}; "
                f"mend that, or give another {parameter}"
            )


def _hindrance(folder: Path) -> str:
    """Why nothing can be written into ``folder``, which need not be there yet; "" if it can."""
    for nearest in (folder, *folder.parents):
        try:
            nearest.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return error.strerror or type(error).__name__
        break
    if not nearest.is_dir():
        return "it is no folder, or lies in what is none"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else "it may not be written into"


def planned(params: Params, only: Sequence[str] | None = None) -> tuple[list[Path], dict[str, str]]:
    """The notebooks that a run plays, and the hashes of the files that some of them show.

    Raises:
        QvlibError: a notebook, the grid's file or the comparison's is missing or wrong.
    """
    notebooks = find_notebooks(project_root() / "notebooks", only, studies_of(params))
    return notebooks, _files(params, notebooks[-1].stem)


def studies_of(params: Params) -> list[str]:
    """The notebooks from ``STUDIES_FROM`` on that a run plays.

    Raises:
        QvlibError: one is named that needs a file, and there is none.
    """
    own = []
    for study, parameter, _ in COMPARING:
        if getattr(params.ablations, parameter):
            own.append(study)
        elif {study, study[:2]} & {*params.run.studies}:
            raise QvlibError(f"studies: {study} has nothing to compare; set `{parameter}`")
    return [*params.run.studies, *own]


def _files(params: Params, last: str) -> dict[str, str]:
    """Hashes of the files of the grid and the comparisons, by the notebook that first shows them.

    They are read before any notebook runs, else a mistake in them would be told hours later.
    """
    found = {}
    for since, file, read in (
        (GRID_FROM, params.ablations.grid, grids.read),
        (COMPARISON, params.ablations.compare, tuning.read),
        (BASELINES, params.ablations.baselines, baselines.read),
    ):
        if file and last >= since:
            read(params)
            found[since] = _hash(resolve(file).read_bytes())
    return found


def find_notebooks(
    folder: Path, only: Sequence[str] | None = None, studies: Sequence[str] = ()
) -> list[Path]:
    """The notebooks ``NN_name.ipynb`` of a folder in order, or those of them that ``only`` names.

    studies: those from ``STUDIES_FROM`` on that the run plays, by number or name.

    Raises:
        QvlibError: there are no notebooks, none of a name, or one is a study that the run has not.
    """
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not is_project(folder.parent):
        raise QvlibError(
            "the notebooks are not installed with qvlib: run it from a folder of the project "
            f"({SOURCE})"
        )
    if not notebooks:
        raise QvlibError(f"{display_path(folder)} holds no notebooks; restore them with git")
    for name in (*(only or ()), *studies):
        if not any(_is_named(path, [name]) for path in notebooks):
            raise QvlibError(
                f"no notebook {name!r}; there are {', '.join(path.stem for path in notebooks)}"
            )
    parts = [path for path in notebooks if path.stem < STUDIES_FROM]
    if early := [name for name in studies if any(_is_named(path, [name]) for path in parts)]:
        raise QvlibError(f"studies: {early[0]!r} is no study: every run plays it; leave it out")
    played = [p for p in notebooks if p in parts or _is_named(p, studies)]
    for name in only or ():
        if not any(_is_named(path, [name]) for path in played):
            raise QvlibError(
                f"notebook {name!r} is a study that this run has not; see `studies`, `compare` and "
                "`baselines`"
            )
    return [path for path in played if not only or _is_named(path, only)]


def _is_named(notebook: Path, names: Sequence[str]) -> bool:
    """Whether one of the names is a notebook's, or its number."""
    return notebook.stem in names or notebook.stem[:2] in names


def execute(notebook: Path, parameters: Mapping[str, Any]) -> Any:
    """Run a notebook in a kernel of its own; its output is forwarded as it comes.

    Returns the executed notebook.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError, strip_color

    out, err = Forward(sys.stdout), Forward(sys.stderr, bars=True)
    try:
        return _in_kernel(notebook, parameters, out, err)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(
            logging.CRITICAL
        )  # else: the cell that waited for the kernel complains
        raise
    except PapermillExecutionError as error:
        out.close(), err.close()
        if error.ename == "QvlibError":
            raise QvlibError(error.evalue) from None
        raise NotebookFailed(
            f"{display_path(notebook)} stopped in cell [{error.exec_count}]:\n"
            + strip_color("\n".join(error.traceback))
        ) from None
    except DeadKernelError:
        raise NotebookFailed(
            f"{display_path(notebook)}: its process died, most likely for want of memory; "
            "lower batch_size and run again, everything finished is kept"
        ) from None
    finally:
        out.close(), err.close()


def render(notebook: Any, results: Path, name: str, stamp: Mapping[str, Any]) -> None:
    """Write an executed notebook and its HTML, without what differs between machines and runs."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "outputs" in cell:
            cell.outputs = [
                _tidied(output) for output in cell.outputs if output.get("name") != "stderr"
            ]
    notebook.metadata["qvlib"] = {"complete": True, **stamp}
    notebook.metadata["qvlib"]["cells"] = hash_of(json.loads(nbformat.writes(notebook))["cells"], 8)
    html, _ = HTMLExporter(template_name="classic").from_notebook_node(
        notebook, {"metadata": {"name": name}}
    )
    notebook.metadata["qvlib"]["html"] = _hash(html.encode())
    write_atomic(results / "html" / f"{name}.html", html)
    write_atomic(
        results / "notebooks" / f"{name}.ipynb", nbformat.writes(notebook) + "\n"
    )  # last: it vouches for both


def has_worked(params: Params, name: str) -> bool:
    """Whether this folder of runs holds the stages that a notebook makes or builds on.

    Of every chain and round. Else rendered results that came with a clone would stand in for a run
    that never was. A grid is tried with the first chain alone.
    """
    first, *others = params.each_seed()
    needed = first.every_stage()
    needed += [
        (made_with, s)
        for chain in others
        for made_with, s in chain.every_stage()
        if s != "trial" and not s.startswith(TRIAL)
    ]
    compared = (
        study.is_made(params)
        for since, parameter, study in COMPARING
        if name >= since and getattr(params.ablations, parameter)
    )
    made = all(is_complete(made_with, s) for made_with, s in needed if notebook_of(s) <= name)
    return made and all(compared)


def _spent(params: Params, name: str) -> float:
    """Seconds that what a notebook makes has taken so far, in all sessions."""
    for own, parameter, study in COMPARING:
        if name == own and getattr(params.ablations, parameter):
            return study.seconds(params)
    of_cells = name.startswith(GRID_FROM) and params.ablations.grid
    return seconds_spent(params, name) + (grids.seconds(params) if of_cells else 0.0)


def must_be_alike(results: Path, params: Params) -> None:
    """Raise QvlibError if results of this name were made with parameters that decide otherwise."""
    try:
        kept = {**json.loads((results / "manifest.json").read_bytes())["parameters"]}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not ours
        return
    decide = {
        name
        for stage in params.stages()
        for fields in params.deciding(stage).values()
        for name in fields
    } | {"seeds"}
    for name, value in params.flat().items():
        if name in decide and name in kept and kept[name] != value:
            raise QvlibError(
                f"{display_path(results)} was rendered with {name} = {kept[name]!r:.40}, and this "
                f"run has {value!r:.40}; give it a name of its own (-p name NAME), or render anew "
                "over it with --force"
            )


def up_to_date(results: Path, name: str, stamp: Mapping[str, Any]) -> float | None:
    """The seconds a notebook took, if its rendered copy has this stamp and nothing of it changed.

    Its HTML, its outputs and the files that it wrote are looked at; else None.
    """
    try:
        notebook = _rendered(results, name)
        metadata = notebook["metadata"]["qvlib"]
        same = (
            metadata["complete"]
            and all(metadata[k] == v for k, v in stamp.items())
            and metadata["cells"] == hash_of(notebook["cells"], 8)
            and metadata["html"] == _hash((results / "html" / f"{name}.html").read_bytes())
            and _are_as_written(results, metadata["files"])
        )
        return metadata["seconds"] if same else None
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours: then it is made
        return None


def _rendered(results: Path, name: str) -> Any:
    return json.loads((results / "notebooks" / f"{name}.ipynb").read_bytes())


def _are_as_written(results: Path, names: Mapping[str, str]) -> bool:
    """Whether these files are as the last notebook that wrote them left them."""
    last = dict(names)
    for path in sorted((results / "notebooks").glob("*.ipynb")):
        last |= _rendered(results, path.stem)["metadata"]["qvlib"].get("files", {})
    return all(_hash((results / name).read_bytes()) == last[name] for name in names)


def _written(results: Path) -> dict[str, tuple[int, int]]:
    """Figures, tables and numbers of a results folder, and what changes whenever one is written."""
    files = (path for path in results.rglob("*") if path.is_file())
    return {
        path.relative_to(results).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files
        if path.relative_to(results).parts[0] not in ("notebooks", "html", "manifest.json")
    }


def _made_since(results: Path, before: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """File -> hash of what was written since."""
    return {
        name: _hash((results / name).read_bytes())
        for name, state in sorted(_written(results).items())
        if before.get(name) != state
    }


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def notebook_hash(path: Path) -> str:
    """A hash of a notebook's cells, whatever outputs they hold."""
    try:
        cells = json.loads(path.read_bytes())["cells"]
    except (ValueError, KeyError, TypeError):
        raise QvlibError(f"{display_path(path)} is not a notebook; restore it with git") from None
    told = [
        [c["cell_type"], "".join(c["source"]), c.get("metadata", {}).get("tags", [])] for c in cells
    ]
    return hash_of(told, 8)


def _in_kernel(notebook: Path, parameters: Mapping[str, Any], out: Forward, err: Forward) -> Any:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    root = project_root()
    for attempt in range(1, KERNEL_STARTS + 1):
        try:
            with _environment(KERNEL_ENVIRONMENT | {"JUPYTER_PATH": _kernels_first()}):
                return papermill.execute_notebook(
                    nbformat.read(notebook, as_version=4),
                    None,
                    dict(parameters),
                    kernel_name="python3",
                    language="python",
                    cwd=root,
                    progress_bar=False,
                    stdout_file=out,
                    stderr_file=err,
                    extra_arguments=KERNEL_ARGUMENTS,
                )
        except DeadKernelError:
            raise
        except RuntimeError as error:
            if not str(error).startswith("Kernel "):
                raise
            if attempt == KERNEL_STARTS:
                raise QvlibError(
                    f"no notebook kernel starts ({error}); "
                    f"try `{sys.executable} -m ipykernel --version`"
                ) from None
            print(
                f"the kernel did not start, trying again ({attempt + 1} of {KERNEL_STARTS})",
                flush=True,
            )
            time.sleep(attempt)
    raise AssertionError("unreachable")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes started meanwhile."""
    before = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _kernels_first() -> str:
    """JUPYTER_PATH under which the kernel ``python3`` is this very Python's."""
    own = str(Path(sys.prefix) / "share" / "jupyter")
    return os.pathsep.join(filter(None, (own, os.environ.get("JUPYTER_PATH"))))


def _tidied(output: Any) -> Any:
    if output.output_type == "stream":
        output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
    return output


def _given(params: Params, notebook: Path) -> dict[str, Any]:
    """What a notebook is given: the parameters that are not the defaults, which it has itself.

    So a reader sees what is special in a run. A value of the notebook's own parameters cell that is
    not the run's, since another world or estimator has another default, is given too.
    """
    cell = parameters_of(notebook)
    own = {name: value for name, value in params.flat().items() if name in cell}
    return params.unusual() | {n: value for n, value in own.items() if value != cell[n]}


def parameters_of(notebook: Path) -> dict[str, Any]:
    """What the parameters cell of a notebook sets."""
    for cell in json.loads(notebook.read_bytes())["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", ()):
            return assigned("".join(cell["source"]), {})
    return {}


def _write_manifest(results: Path, params: Params, spent: Mapping[str, float]) -> None:
    write_json(
        results / "manifest.json",
        {
            "name": params.run.name,
            "finished": now(),
            "seconds": round(sum(spent.values()), 1),
            "notebooks": dict(spent),
            **provenance(params.flat()),
            "peak_memory_gib": _peak_memory(params),
            "data_hashes": _data_hashes(params),
            "parameters": params.flat(),
        },
    )


def _peak_memory(params: Params) -> dict[str, float]:
    """The most memory that any stage of the run took, GiB, by kind."""
    stages = [
        read_stage(made_with, stage)
        for chain in params.each_seed()
        for made_with, stage in chain.every_stage()
        if is_complete(made_with, stage)
    ]
    peaks = [stage.manifest.get("peak_memory_gib", {}) for stage in stages]
    return {
        kind: max(peak.get(kind, 0.0) for peak in peaks)
        for kind in dict.fromkeys(k for peak in peaks for k in peak)
    }


def _data_hashes(params: Params) -> dict[str, str] | None:
    return (
        read_stage(params, "data").manifest["data_hashes"] if is_complete(params, "data") else None
    )


def _report(results: Path, seconds: float) -> None:
    for table in ("summary", "reads", "estimators"):
        told = results / "tables" / f"{table}.md"
        if told.exists():
            print(f"\n{visible(told.read_text().strip())}\n")
    print(f"Done in {format_duration(seconds)}.")
    for what, path in (
        ("Report", results / "html" / "07_report.html"),
        ("Notebooks", results / "notebooks"),
        ("Tables", results / "tables"),
        ("Figures", results / "figures"),
    ):
        if path.exists():
            print(f"{what + ':':<10} {display_path(path)}")
