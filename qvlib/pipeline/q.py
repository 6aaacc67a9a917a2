"""Fitting the Q model and its controls to the preference pairs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import rank, stream
from qvlib.core.preferences import Pair, hold_out, shuffle_winners
from qvlib.core.types import Environment
from qvlib.pipeline.cards import model_card
from qvlib.pipeline.common import (
    on_own_device,
    one_thread,
    processes,
    save_folder,
    save_model,
    write_table,
)
from qvlib.pipeline.models import load, load_reference
from qvlib.pipeline.pairs import load_pairs
from qvlib.pipeline.params import Params
from qvlib.pipeline.world import world
from qvlib.report.sentences import dropped
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path

if TYPE_CHECKING:
    from qvlib.estimators.log_ratio import LogRatio


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
    if rank()[1] > 1 and any(one.trainer != "trl" for one, _ in todo):
        raise QvlibError(
            "trainer: loop trains in one process alone; set trainer: trl, or start it without a launcher"
        )
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
        rows, held_rows = encode(environment, lm, train), encode(environment, lm, held)
        if which == "q_model":
            facts = _fit(params, stage, lm, rows, held_rows, "model", "DPO")
            yield "model"
        else:
            facts = {"controls": []}
            for k in range(params.control_shuffles):
                shuffled = [
                    row
                    if pair.chosen == given.chosen
                    else replace(row, chosen=row.rejected, rejected=row.chosen)
                    for row, given, pair in zip(
                        rows, train, shuffle_winners(train, params.seed, k), strict=True
                    )
                ]
                facts["controls"].append(
                    _fit(params, stage, lm, shuffled, held_rows, f"model-{k}", f"control {k}")
                )
                yield f"model-{k}"
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


def _fit(
    params: Params,
    stage: Stage,
    lm: Any,
    train: Sequence[Any],
    held: Sequence[Any],
    name: str,
    label: str,
) -> dict[str, Any]:
    """Tune a copy of ``lm`` on encoded pairs and save it and its curve; returns facts about it."""
    from qvlib.estimators.step_dpo import some_fit

    given, given_held = len(train), len(held)
    train, held = some_fit(lm, train, held)
    options: dict[str, Any] = {}
    if params.trainer == "trl":
        from qvlib.estimators.step_dpo_trl import train as fit

        options = {"lora_rank": params.lora_rank, "folder": stage.path / f"{name}-trl"}
    else:
        from qvlib.estimators.step_dpo import train as fit
    tuned, curve = fit(
        lm,
        train,
        held,
        beta=params.beta,
        lr=params.dpo_lr,
        epochs=params.dpo_epochs,
        batch=params.dpo_batch,
        rule=params.log_prob,
        seed=params.seed,
        schedule=params.dpo_schedule,
        label=label,
        **options,
    )
    last = [row for row in curve if row["split"] == "held-out"]
    facts = {
        "pairs": len(train),
        "held_out_pairs": len(held),
        "held_out_accuracy": last[-1]["accuracy"] if last else None,
        "dropped_pairs": given - len(train),
        "dropped_held_out_pairs": given_held - len(held),
    }
    if not stage.writable:
        return facts
    write_table(stage, name.replace("model", "curve"), curve)
    card = model_card(params, {"control": name != "model", **facts})
    adapter = stage.path / f"{name}-trl" / "adapter"
    if params.trainer == "trl" and params.lora_rank:
        save_folder(
            stage,
            name,
            lambda folder: (shutil.copytree(adapter, folder), lm.tokenizer.save_pretrained(folder)),
            card,
        )
    else:
        save_model(stage, tuned.model, lm.tokenizer, name, card)
    return facts


def encode(environment: Environment, lm: Any, pairs: Sequence[Pair]) -> list[Any]:
    """Pairs as token ids, by the prompts the agent reads."""
    from qvlib.estimators.step_dpo import encode_pairs, rebuild

    tasks = {t.id: t for t in environment.tasks("train")}
    unknown = next((p.task for p in pairs if p.task not in tasks), None)
    if unknown is not None:
        raise QvlibError(
            f"pair of task {unknown!r}: no such training task; use trees made on the same data"
        )
    return encode_pairs(lm, [rebuild(environment, tasks[p.task], p.path) for p in pairs], pairs)


def load_q(
    params: Params,
    name: str = "model",
    stage: str = "q_model",
    agent: Any = None,
    reference: Any = None,
) -> LogRatio:
    """A trained Q model with its reference, which is loaded unless it is given or is the model of ``agent``.

    An adapter is switched on in the reference's own memory for each call, and off again.
    """
    from qvlib.estimators.log_ratio import LogRatio
    from qvlib.models.adapters import Switched, is_adapter

    reference, folder = (
        reference or load_reference(params, agent),
        read_stage(params, stage).path / name,
    )
    if is_adapter(folder):
        return LogRatio(
            reference.tuned(Switched(reference.model, folder)), reference, params.log_prob
        )
    dtype = str(reference.model.dtype).removeprefix("torch.")
    return LogRatio(load(params, folder, dtype), reference, params.log_prob)
