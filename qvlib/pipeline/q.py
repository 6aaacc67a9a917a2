"""Fitting the Q model and its controls to the preference pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import rank, stream
from qvlib.base.settings import Settings
from qvlib.core.preferences import Pair, hold_out, shuffle_winners
from qvlib.core.types import QModel
from qvlib.estimators import Problem, estimator_of
from qvlib.pipeline.cards import model_card
from qvlib.pipeline.common import (
    on_own_device,
    one_thread,
    processes,
    save_folder,
    write_table,
)
from qvlib.pipeline.models import load, load_reference
from qvlib.pipeline.pairs import load_pairs, load_trees
from qvlib.pipeline.params import Params
from qvlib.pipeline.world import world
from qvlib.report.sentences import dropped
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path

ESTIMATOR = "step_dpo"


def train_q(params: Params) -> Stage:
    """Fit the Q model of each chain to its preference pairs, and the controls beside it; gives the first chain's Q model.

    ``q_model`` holds ``model/`` and ``curve.parquet``. ``control`` holds the same training on the same
    pairs with each winner drawn by a coin, ``model-<k>/`` and ``curve-<k>.parquet`` for each shuffle. A printed line tells
    how many pairs did not fit the model's context, if any.

    Several processes that a launcher started (``qvlib train``) fit each model together; the first alone writes.

    Raises:
        QvlibError: no pairs to train on, or several processes and a trainer or a batch that they cannot share.
    """
    params = on_own_device(params)
    fit(
        [(one, stage) for one in params.each_seed() for stage in ("q_model", "control")],
        processes(params),
    )
    stage = read_stage(params, "q_model")
    if dropped(stage.facts) and rank()[0] == 0:
        print(dropped(stage.facts))
    return stage


def fit_q(params: Params) -> Stage:
    """The Q model of one chain, without its controls."""
    fit([(params, "q_model")], 1)
    return read_stage(params, "q_model")


def fit(stages: Sequence[tuple[Params, str]], processes: int) -> None:
    """Fit the models of stages that are not done, each stage in its own process where there are several."""
    todo = [one for one in stages if not is_complete(*one)]
    count = {"q_model": lambda p: 1, "control": lambda p: p.control_shuffles}
    total = sum(count[stage](p) for p, stage in stages)
    found = (
        stream(_fit_stage, todo) if processes > 1 else chain(*(_fit_stage(*one) for one in todo))
    )
    with tqdm(
        total=total,
        initial=total - sum(count[stage](p) for p, stage in todo),
        desc="fitting Q models",
        unit="model",
    ) as bar:
        for _ in found:
            bar.update()


def _fit_stage(params: Params, which: str) -> Iterator[str]:
    """Fit the models of a stage; yields their names."""
    one_thread(params)
    train, held = hold_out(load_pairs(params), params.heldout_share, params.seed)
    if not train:
        raise QvlibError(
            "all preference pairs are held out; lower heldout_share or collect more trees"
        )
    with _opened(params, which) as stage:
        environment, lm = world(params), load_reference(params)

        def problem(pairs: Sequence[Pair], name: str, label: str) -> Problem:
            scratch = stage.path / f"{name}-{params.trainer}"
            return Problem(
                environment,
                lm,
                pairs,
                held,
                lambda: load_trees(params),
                params.seed,
                label,
                scratch,
            )

        if which == "q_model":
            facts = _fit(params, stage, problem(train, "model", "DPO"), "model")
            yield "model"
        else:
            facts = {"controls": []}
            for k in range(params.control_shuffles):
                shuffled = shuffle_winners(train, params.seed, k)
                name = f"model-{k}"
                facts["controls"].append(
                    _fit(params, stage, problem(shuffled, name, f"control {k}"), name)
                )
                yield name
        if stage.writable:
            stage.finish(**facts)
    if rank()[1] > 1:
        import torch

        torch.distributed.barrier()  # what the first process wrote is there for the others


def _opened(params: Params, which: str) -> AbstractContextManager[Stage]:
    """The stage, which of several processes the first alone opens for writing."""
    return (
        open_stage(params, which)
        if rank()[0] == 0
        else nullcontext(Stage(stage_path(params, which), {}))
    )


def _fit(params: Params, stage: Stage, problem: Problem, name: str) -> dict[str, Any]:
    """Fit the estimator and save it and its curve; returns facts about it."""
    fitted = estimator_of(ESTIMATOR).fit(problem, settings_of(params))
    if stage.writable:
        write_table(stage, name.replace("model", "curve"), fitted.curve)
        card = model_card(params, {"control": name != "model", **fitted.facts}, fitted.card)
        save_folder(stage, name, fitted.save, card)
    return fitted.facts


def settings_of(params: Params) -> Settings:
    """The estimator's settings among the parameters."""
    section = estimator_of(ESTIMATOR).settings
    return section(**{name: getattr(params, name) for name in section.names()})


def load_q(
    params: Params,
    name: str = "model",
    stage: str = "q_model",
    agent: Any = None,
    reference: Any = None,
) -> QModel:
    """A trained Q model with its reference, which is loaded unless it is given or is the model of ``agent``."""
    return estimator_of(ESTIMATOR).load(
        read_stage(params, stage).path / name,
        reference or load_reference(params, agent),
        settings_of(params),
        lambda folder, dtype: load(params, folder, dtype),
    )
