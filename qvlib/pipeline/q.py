"""The stages of the Q model and of its controls: the chosen estimator, fitted to the pairs."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from qvlib.agents import eto
from qvlib.agents.disagreement import is_drawn
from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import rank
from qvlib.base.files import write_json
from qvlib.base.paths import resolve
from qvlib.core.preferences import Pair, hold_out, shuffle_winners
from qvlib.estimators import Estimator, Problem, estimator_of
from qvlib.models.saving import saving
from qvlib.pipeline.agents import OnFailure, must_be_tunable
from qvlib.pipeline.cards import model_card, notes
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.data import data_folders
from qvlib.pipeline.pairs import each_tree, load_pairs
from qvlib.pipeline.params import Params
from qvlib.pipeline.work import (
    Failed,
    Made,
    Parcel,
    clear,
    clear_elsewhere,
    guarded,
    keep_to_share,
    on_own_device,
    workers,
)
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path

FACTS = "facts.json"  # beside a model's weights, so that what was fitted is not fitted again


def train_q(run: Params | Context) -> Stage:
    """Fit the Q model of each chain to its preference pairs, and the controls beside it.

    ``q_model`` holds ``model/`` and ``curve.parquet``. ``control`` holds the same training on the
    same pairs with each winner drawn by a coin: ``model-<k>/`` and ``curve-<k>.parquet`` for each
    shuffle. A printed line tells how many pairs did not fit the model's context, if any, and one
    where pairs could not be packed. Gives the first chain's Q model.

    Several processes that a launcher started (``qvlib train``) fit each model together; the first
    alone writes.

    Raises:
        QvlibError: no pairs to train on, or several processes and a trainer that they cannot share.
    """
    if isinstance(run, Params):
        run = on_own_device(run)
    context = context_of(run)
    fit([(chain, stage) for chain in chains(context) for stage in ("q_model", "control")])
    stage = read_stage(context.params.each_seed()[0], "q_model")
    if rank()[0] == 0:
        for note in notes(stage.facts):
            print(note)
    return stage


def fit(todo: Sequence[tuple[Context, str]], on_failure: OnFailure | None = None) -> None:
    """Fit the models of stages that are not done, each model a part of the work.

    A model that was fitted before its stage was stopped is not fitted again.

    on_failure: told of a model that cannot be fitted, while others go on; without it, raised.
    """
    missing = [(each, stage) for each, stage in todo if not is_complete(each.params, stage)]
    total = sum(len(_names(each.params, stage)) for each, stage in todo)
    if not missing:
        return
    params = missing[0][0].params
    if rank()[1] > 1:
        _fit_together(missing)
        return
    with ExitStack() as stack:
        stages, parts = {}, []
        for each, which in missing:
            stage = stack.enter_context(open_stage(each.params, which))
            if stage.complete:
                continue
            facts = _fitted(stage.path, _names(each.params, which))
            left = [name for name, known in facts.items() if known is None]
            if not left:  # stopped between the last model and the end
                _finish(stage, facts)
            stages[stage.path.name] = stage, facts, each.params
            parts += [(each, which, name, _scratch(stage.path, name)) for name in left]
        # Training a named model fills a GPU by itself, its memory too.
        named = params.agent.agent != "small" or bool(params.q_model.q_base)
        executor = stack.enter_context(workers(params, named and params.run.device != "cpu"))
        for each, _ in missing:
            made_before = ("agent", "trees", "pairs")
            executor.place(
                [*data_folders(each.params), *(stage_path(each.params, s) for s in made_before)]
            )
        bar = tqdm(total=total, initial=total - len(parts), desc="fitting Q models", unit="model")
        with bar:
            work = fit_model if on_failure is None else _guarded
            for made in executor.stream(work, parts, key=lambda made: made.part):
                folder, _, name = made.part.partition("/")
                stage, facts, fitted_for = stages[folder]
                if isinstance(made, Failed):
                    on_failure(fitted_for, made.message)
                    continue
                made.keep(stage)
                stage.took(name, made.seconds)
                clear(_scratch(stage.path, name))
                facts[name] = dict(made.facts)
                if all(value is not None for value in facts.values()):
                    _finish(stage, facts)
                bar.update()


def _names(params: Params, which: str) -> list[str]:
    """The models of a stage."""
    if which in ("q_model", eto.STAGE):
        return ["model"]
    critics = which == "critics"
    count = params.collecting.critics if critics else params.q_model.control_shuffles
    return [f"model-{k}" for k in range(count)]


def _scratch(folder: Path, name: str) -> Path:
    """Where the training of a stage's model keeps its checkpoints."""
    return folder / f"{name}-training"


def _fitted(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """The facts of a stage's models; None of those that are not fitted yet."""
    files = [(name, folder / name / FACTS) for name in names]
    return {name: json.loads(f.read_bytes()) if f.is_file() else None for name, f in files}


def _finish(stage: Stage, facts: dict[str, dict]) -> None:
    if list(facts) == ["model"]:
        stage.finish(**facts["model"])
    else:
        several = "critics" if stage.manifest["stage"] == "critics" else "controls"
        stage.finish(**{several: list(facts.values())})


def _guarded(context: Context, which: str, name: str, scratch: Path) -> Iterator[Made | Failed]:
    part = f"{stage_path(context.params, which).name}/{name}"
    return guarded(fit_model, part, context, which, name, scratch)


def fit_model(context: Context, which: str, name: str, scratch: Path) -> Iterator[Made]:
    """Fit one model; yields what was made.

    Raises:
        QvlibError: all pairs are held out, or what the estimator raises.
    """
    params = context.params
    keep_to_share(params)
    train, held_out = hold_out(load_pairs(params), params.pairs.heldout_share, params.run.seed)
    if not train:
        raise QvlibError(
            "all preference pairs are held out; lower heldout_share or collect more trees"
        )
    train, trees, label = _part(params, which, name, train)
    (estimator, settings), told = _fitted_by(params, which), context.world.solution
    problem = Problem(
        environment=context.environment,
        reference=context.model() if which == eto.STAGE else context.reference(),
        train=train,
        held_out=held_out,
        trees=trees,
        seed=params.run.seed,
        label=label,
        scratch=scratch,
        shuffle=int(name.removeprefix("model-")) if which == "control" else None,
        features=resolve(params.run.runs_dir) / "features",
        solution=partial(told, context.environment) if told else None,
    )
    begun = time.monotonic()
    fitted = estimator.fit(problem, settings)
    seconds = time.monotonic() - begun
    part = f"{stage_path(params, which).name}/{name}"
    if rank()[0] != 0:  # several processes have fitted it together, and the first has it
        yield Made(part, facts=fitted.facts)
        return
    with tempfile.TemporaryDirectory(prefix="qvlib-") as temporary:
        folder = Path(temporary) / "model"
        fitted.save(folder)
        kinds = {
            "control": which == "control",
            "critic": which == "critics",
            "eto": which == eto.STAGE,
        }
        facts = {**kinds, **fitted.facts}
        card = model_card(params, facts, fitted.card)
        with saving(folder):
            (folder / "README.md").write_text(card)
        write_json(folder / FACTS, fitted.facts)
        tables = {name.replace("model", "curve"): fitted.curve}
        yield Made(part, {name: Parcel(folder)}, tables, fitted.facts, seconds)
    clear_elsewhere(params, scratch)


def train_eto(run: Params | Context) -> Stage:
    """Tune each chain's agent as ETO does: ``model/``, ``curve.parquet``. Gives the first chain's.

    Raises:
        QvlibError: the agent is behind a server, or as ``trajectory_dpo.fit``.
    """
    context = context_of(run)
    must_be_tunable(context.params.agent.agent, "eto")
    fit([(chain, eto.STAGE) for chain in chains(context)])
    return read_stage(context.params.each_seed()[0], eto.STAGE)


def _fitted_by(params: Params, which: str) -> tuple[Estimator, Any]:
    """The estimator of a stage's models, and its settings."""
    if which != eto.STAGE:
        return estimator_of(params.q_model.estimator), params.estimator
    estimator = estimator_of(eto.ESTIMATOR)
    return estimator, estimator.settings(**eto.of_estimator(params.eto))


Trees = Callable[[], Iterator[dict[str, Any]]]


def _part(
    params: Params, which: str, name: str, train: list[Pair]
) -> tuple[list[Pair], Trees, str]:
    """(training pairs, trees, label) of a model of a stage.

    All of them; for a control with shuffled labels, for a critic those of its own tasks, which its
    coins give it.
    """
    seed, number = params.run.seed, name.removeprefix("model-")
    if which == "control":
        pairs = shuffle_winners(train, seed, int(number))
        return pairs, partial(_trees, params), f"control {number}"
    if which == "critics":
        is_own = partial(is_drawn, seed=seed, critic=int(number))
        pairs = [pair for pair in train if is_own(pair.task)]
        if not pairs:  # of so few tasks there is no half
            return train, partial(_trees, params), f"critic {number}"
        return pairs, partial(_trees, params, is_own=is_own), f"critic {number}"
    return train, partial(_trees, params), "ETO" if which == eto.STAGE else "Q model"


def _trees(params: Params, is_own: Callable[[str], bool] | None = None) -> Iterator[dict[str, Any]]:
    """The trees that a model is fitted to, of its own tasks alone."""
    return (tree for tree in each_tree(params) if is_own is None or is_own(tree["task"]))


def _fit_together(missing: Sequence[tuple[Context, str]]) -> None:
    """Fit in the processes of a launcher: all fit each model together, the first alone writes."""
    import torch

    for each, which in missing:
        with ExitStack() as stack:
            writes = rank()[0] == 0
            stage = stack.enter_context(open_stage(each.params, which)) if writes else None
            folder, names = stage_path(each.params, which), _names(each.params, which)
            facts = _fitted(folder, names)
            for name in [name for name in names if facts[name] is None]:
                for made in fit_model(each, which, name, _scratch(folder, name)):
                    facts[name] = dict(made.facts)
                    if stage is not None:
                        made.keep(stage)
                        stage.took(name, made.seconds)
            if stage is not None:
                _finish(stage, facts)
        if torch.distributed.is_initialized():  # by a training, of which none may have been left
            torch.distributed.barrier()  # what the first process wrote is there for the others
        if stage is not None:
            for name in names:
                clear(_scratch(folder, name))
