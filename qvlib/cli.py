"""The command line: run the notebooks, explain parameters, check worlds against the original."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_origin

from qvlib import __version__
from qvlib.base.errors import QvlibError, of_the_machine
from qvlib.base.markup import visible

if TYPE_CHECKING:
    from qvlib.pipeline.params import Params


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0 done, 1 failed, 2 the user can mend it, 130 interrupted.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this, as by `>&-`
            setattr(sys, name, open(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # which may not know each letter of a table
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
        status = options.command(options)
        sys.stdout.flush()
        return status
    except QvlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads the output wants no more, as `head`
        _write_no_more()
        return 1
    except OSError as error:  # of the output itself: files have errors of their own
        wrong = of_the_machine(error)
        if wrong is None:
            raise
        _write_no_more()
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\ninterrupted; everything finished is kept: the same command goes on from there",
            file=sys.stderr,
        )
        return 130


def _write_no_more() -> None:
    """Drop what is still to be written to the standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(options: argparse.Namespace) -> int:
    from qvlib.base.executors.processes import rank
    from qvlib.runner import NotebookFailed, run

    if rank()[1] > 1:
        raise QvlibError(
            f"{rank()[1]} processes were launched (WORLD_SIZE), but only `qvlib train` is for "
            "several; start `qvlib run` once"
        )
    overrides = _overrides(options)
    only = None if options.only is None else [name.strip() for name in options.only.split(",")]
    if options.dry:
        if only is not None or options.force:
            raise QvlibError(
                "--dry takes all stages through, without notebooks: it knows no --only and no "
                "--force; leave them out"
            )
        return _dry(options.file, overrides)
    try:
        run(options.file, only=only, force=options.force, overrides=overrides)
    except NotebookFailed as error:
        print(visible(str(error)), file=sys.stderr)
        return 1
    return 0


def _dry(file: str, overrides: dict[str, Any]) -> int:
    import tempfile
    from pathlib import Path

    from qvlib.pipeline.params import load
    from qvlib.report import tables
    from qvlib.runner import planned
    from qvlib.tools import dry

    params = load(file, **overrides)
    planned(params)  # what the run would refuse at once is refused here too
    with tempfile.TemporaryDirectory(prefix="qvlib-dry-") as folder:
        arms = dry.run(params, Path(folder))
    costs = ["arm", "steps", "tokens", "prompt tokens", "refused", "unparsable"]
    print(tables.markdown(tables.display_arms(arms).filter(items=costs)))
    print(
        "all stages done, with small random models in the place of those named: "
        "the rewards mean nothing"
    )
    return 0


def _train(options: argparse.Namespace) -> int:
    """Fit the Q model and its controls to pairs that are there.

    Alone, or as one of the processes of a launcher.
    """
    from qvlib.base.executors.processes import rank

    first = rank()[0] == 0
    if not first:
        os.environ["TQDM_DISABLE"] = "1"
    from qvlib import pipeline
    from qvlib.base.paths import display_path
    from qvlib.pipeline.params import load
    from qvlib.report import numbers, sentences

    params = load(options.file, **_overrides(options))
    stage = pipeline.train_q(params)
    if first:
        print(sentences.accuracy(numbers.held_out(params.each_seed())))
        print(f"Q model: {display_path(stage.path / 'model')}")
    if rank()[1] > 1:
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


def _params(options: argparse.Namespace) -> int:
    from qvlib.pipeline.params import load, make

    params = load(options.file) if options.file else make({})
    print(params_table(params, every=not options.file))
    return 0


def _needs(options: argparse.Namespace) -> int:
    from qvlib.pipeline.params import load
    from qvlib.tools import needs

    params = load(options.file, **_overrides(options))
    source = needs.nearest(params) if options.source is None else options.source
    run = needs.measured(source, params)
    report = needs.report(
        params,
        run,
        needs.lengths(params, run, options.reply_tokens),
        options.tokens_per_second,
        options.q_tokens_per_second,
    )
    print(visible(report))
    return 0


def _parity(options: argparse.Namespace) -> int:
    from qvlib.tools import parity

    rows = parity.CHECKS[options.world](options.folder)
    print(visible(parity.format_rows(rows)))
    return 0 if all(row.matching == row.total for row in rows) else 1


def _bench(options: argparse.Namespace) -> int:
    from qvlib.tools import bench

    bench.run(options.name, options.repeats, options.save, options.model)
    return 0


def _index(options: argparse.Namespace) -> int:
    from qvlib.base.paths import display_path, project_root, resolve
    from qvlib.report.front_page import write_front_page
    from qvlib.report.results_index import write_results_index

    folder = resolve(options.folder)
    if not folder.is_dir():
        raise QvlibError(f"{options.folder}: no such results folder; `qvlib run` makes one")
    front = options.front_page
    if front and not (folder / front / "metrics.json").is_file():
        raise QvlibError(
            f"--front-page {front}: {options.folder} has no metrics.json of such a run"
        )
    print(display_path(write_results_index(folder)))
    if options.front_page:
        print(
            display_path(write_front_page(project_root() / "README.md", folder, options.front_page))
        )
    return 0


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """What ``-p KEY VALUE`` gave, as the parameters' types have it."""
    given: dict[str, Any] = {}
    for key, text in options.parameter:
        if key in given:
            raise QvlibError(f"-p {key} is given twice; keep one of them")
        given[key] = parse_value(key, text)
    return given


def parse_value(key: str, text: str) -> Any:
    """A ``-p KEY VALUE`` as the parameter's type has it; ``make`` reports what does not fit."""
    from qvlib.base.yaml_text import parse_yaml
    from qvlib.pipeline.params import type_of

    kind = type_of(key)
    if kind is str or (kind is not None and get_origin(kind) is Literal):
        return text
    if kind is float:
        try:
            return float(text)
        except ValueError:
            return text
    try:
        return parse_yaml(text, f"-p {key}")
    except QvlibError:
        if kind is None:  # of a world, arm or estimator of one's own: perhaps meant as text
            return text
        raise


def params_table(params: Params, width: int = 120, every: bool = True) -> str:
    """All parameters with value, default where it is another, and meaning, by section.

    every: else of an arm that is not played only what switches it on.
    """
    default = params.defaults().flat()
    values = params.flat()
    names = max(map(len, values))
    longest = max(len(_display_value(v)) for v in (*values.values(), *default.values()))
    row = f"{{:<{names}}}  {{:<{longest}}}  {{:<{longest}}}  "
    indent = " " * len(row.format("", "", ""))
    lines = [row.format("parameter", "value", "default") + "meaning"]
    for section, settings in params.sections:
        lines.append(f"\n-- {section}: {_first_line(type(settings))}")
        for name, field in _shown(params, settings, every):
            value, usual = values[name], default[name]
            other = "=" if value == usual else _display_value(usual)
            meaning = textwrap.wrap(field.description, width - len(indent))
            lines.append(row.format(name, _display_value(value), other) + meaning[0])
            lines.extend(indent + more for more in meaning[1:])
    return "\n".join(lines)


def _shown(params: Params, settings: Any, every: bool) -> list[tuple[str, Any]]:
    """The settings of a section that matter; the first of an arm's is what switches it on."""
    from qvlib.agents.arms import arms_of

    fields = list(type(settings).model_fields.items())
    arms = arms_of(params.evaluation.extra_arms)
    of_arm = [arm for arm in arms if arm.settings is type(settings)]
    off = of_arm and not any(arm.active(params) for arm in of_arm)
    return fields[:1] if off and not every else fields


def _first_line(described: Any) -> str:
    return (described.__doc__ or "").partition("\n")[0]


def _display_value(value: Any) -> str:
    text = (
        f"{value:.6g}" if isinstance(value, float) else repr(value) if value == "" else str(value)
    )
    return text if len(text) <= 26 else "..." + text[-23:]


def _positive(text: str) -> float:
    """A measured number that an option gives."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a finite number above 0 is needed")
    return number


def _count(text: str) -> int:
    """How often an option asks for something."""
    number = int(text)
    if not 0 < number < 2**31:
        raise argparse.ArgumentTypeError(f"{text}: a whole number above 0 is needed")
    return number


def _takes_parameters(command: argparse.ArgumentParser, file: str) -> None:
    """A command of a parameter file, which ``-p`` changes in part."""
    command.add_argument("file", help=file)
    command.add_argument(
        "-p",
        dest="parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="a parameter instead of the file's; repeat for more",
    )


def _parser() -> argparse.ArgumentParser:
    from qvlib.tools import bench as benchmarks

    parser = argparse.ArgumentParser(
        prog="qvlib", description="Step-level Q-value models for language-model agents."
    )
    parser.add_argument("--version", action="version", version=f"qvlib {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the notebooks; resumes where it stopped")
    _takes_parameters(run, "parameter file, params/quick.yml")
    run.add_argument(
        "--dry",
        action="store_true",
        help="all stages at once, tiny, with random models of the same architectures",
    )
    run.add_argument("--only", metavar="02,05", help="only these notebooks")
    run.add_argument("--force", action="store_true", help="run also what is up to date")
    run.set_defaults(command=_run)

    train = commands.add_parser(
        "train", help="fit the Q model alone, by several processes where a launcher starts them"
    )
    _takes_parameters(train, "parameter file, the same as for run")
    train.set_defaults(command=_train)

    params = commands.add_parser("params", help="list the parameters with their meanings")
    params.add_argument("file", nargs="?", help="parameter file; without it, the defaults")
    params.set_defaults(command=_params)

    needs = commands.add_parser(
        "needs",
        help="GPU memory, tokens, hours and USD of a run, from what a finished one has counted",
    )
    _takes_parameters(needs, "parameter file, params/paper/webshop-phi3-mini.yml")
    needs.add_argument(
        "--from",
        dest="source",
        metavar="RESULTS",
        help="results of a finished run; without it the file's own, or a like agent's",
    )
    needs.add_argument(
        "--reply-tokens",
        type=_positive,
        metavar="N",
        help="tokens of a reply, thought included, where you have measured them",
    )
    needs.add_argument(
        "--tokens-per-second",
        type=_positive,
        metavar="N",
        help="what the agent's model reads and writes on your machine",
    )
    needs.add_argument(
        "--q-tokens-per-second", type=_positive, metavar="N", help="what the Q model reads"
    )
    needs.set_defaults(command=_needs)

    parity = commands.add_parser(
        "parity", help="compare a world with the original's recorded cases"
    )
    parity.add_argument("world", choices=["hotpotqa", "webshop"])
    parity.add_argument(
        "folder", metavar="DIR", help="folder with the official data files and golden cases"
    )
    parity.set_defaults(command=_parity)

    bench = commands.add_parser("bench", help="ratios of speed, a table and a line of JSON")
    bench.add_argument(
        "name",
        choices=benchmarks.NAMES,
    )
    bench.add_argument(
        "--repeats", type=_count, default=3, help="rounds that are counted, where ways take turns"
    )
    bench.add_argument("--save", action="store_true", help="also write it into results/bench")
    bench.add_argument(
        "--model",
        default="",
        help="conversations, precision: a causal model instead of smollm2, a folder or a GGUF file",
    )
    bench.set_defaults(command=_bench)

    index = commands.add_parser("index", help="write README.md of the results folder from its runs")
    index.add_argument("folder", nargs="?", default="results", help="results folder")
    index.add_argument(
        "--front-page",
        metavar="RUN",
        help="also write this run's table into the project's README.md",
    )
    index.set_defaults(command=_index)
    return parser


if __name__ == "__main__":
    sys.exit(main())
