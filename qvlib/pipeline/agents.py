"""The stage of the agents: cloned from demonstrations, fine-tuned on them, or as they are named."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.executors import Executor
from qvlib.base.seeding import generator
from qvlib.core.episodes import decisions, demonstrate
from qvlib.models.names import is_remote
from qvlib.pipeline import models
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.data import data_folders
from qvlib.pipeline.params import Params
from qvlib.pipeline.work import (
    Failed,
    Made,
    Parcel,
    Progress,
    check_device,
    clear,
    clear_elsewhere,
    guarded,
    is_elsewhere,
    keep_to_share,
    processes,
    set_threads,
    workers,
)
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path

if TYPE_CHECKING:
    import pandas as pd

Part = tuple[Context, str, Path]
Item = Progress | Made | Failed
OnFailure = Callable[[Params, str], None]


def train_agents(run: Params | Context) -> Stage:
    """Make the agents of each chain, the first and the second, side by side.

    Small ones are cloned. Where ``agent`` or ``other_agent`` names a model, that is the agent:
    fine-tuned on the demonstrations where ``warm_start`` is set, else only looked at. Gives the
    first chain's agent.

    Raises:
        QvlibError: a name that gives no model with a tokenizer, a GPU that is not there, or ``rft``
            or ``eto`` is set for an agent behind a server.
    """
    params = run if isinstance(run, Params) else run.params
    check_device(params)
    for parameter in ("rft", "eto"):
        if params.flat()[parameter]:
            must_be_tunable(params.agent.agent, parameter)
    context = context_of(run)
    second = ["other_agent"] * (params.other_agent.other_demonstrations > 0)
    make_agents([(each, which) for each in chains(context) for which in ("agent", *second)])
    return read_stage(params, "agent")


def make_agents(todo: Sequence[tuple[Context, str]], on_failure: OnFailure | None = None) -> None:
    """Make the agents that are not there yet, each a part of the work.

    on_failure: told of an agent that cannot be made, while the others go on; without it, raised.
    """
    missing = [(each, which) for each, which in todo if not is_complete(each.params, which)]
    if not missing:
        return
    params = missing[0][0].params
    with ExitStack() as stack:
        stages, parts = {}, []
        for each, which in missing:
            stage = stack.enter_context(open_stage(each.params, which))
            if not stage.complete:
                scratch = stage.path / "training"
                stages[stage.path.name] = stage, scratch, each.params
                parts.append((each, which, scratch))
        executor = stack.enter_context(workers(params))
        executor.place(data_folders(params))
        bars: dict[str, tqdm] = {}
        work = _make if on_failure is None else _guarded
        large = [part for part in parts if is_fine_tuned(part[0].params, part[1])]
        for item in by_size(executor, work, parts, large, _key):
            if isinstance(item, Progress):
                if item.label not in bars:
                    bars[item.label] = _bar(item, len(bars))
                bars[item.label].update(item.step - bars[item.label].n)
                continue
            stage, scratch, made_for = stages[item.part]
            if isinstance(item, Failed):
                on_failure(made_for, item.message)
                continue
            item.keep(stage)
            clear(scratch)
            stage.finish(**item.facts)
        for bar in bars.values():
            bar.close()


def _bar(item: Progress, position: int) -> tqdm:
    title = f"cloning {item.label}"
    return tqdm(total=item.steps, desc=title, unit="batch", position=position)


def by_size(
    executor: Executor,
    work: Callable[..., Iterator[Any]],
    parts: Sequence[tuple[Any, ...]],
    large: Sequence[tuple[Any, ...]],
    key: Callable[[Any], Any],
) -> Iterator[Any]:
    """Small models side by side; on this machine a large one takes all cores by itself.

    Not on a GPU, which the small kernels of a LoRA do not fill. A part begins with the context of
    its chain.
    """
    if parts and (is_elsewhere(parts[0][0].params) or parts[0][0].params.run.device != "cpu"):
        large = []
    small = [part for part in parts if part not in large]
    yield from executor.stream(work, small, key=key)
    for part in large:
        yield from work(*part)


def _guarded(context: Context, which: str, scratch: Path) -> Iterator[Item]:
    return guarded(_make, stage_path(context.params, which).name, context, which, scratch)


def _key(item: Item) -> Any:
    return (item.label, item.step) if isinstance(item, Progress) else item.part


def model_name(params: Params, which: str) -> str:
    """What the parameters name as an agent."""
    return params.other_agent.other_agent if which == "other_agent" else params.agent.agent


def is_fine_tuned(params: Params, which: str) -> bool:
    """Whether an agent is a named model that is fine-tuned first."""
    return params.agent.warm_start and model_name(params, which) != "small"


def _make(context: Context, which: str, scratch: Path) -> Iterator[Progress | Made]:
    """Make one agent; yields how far it is, then what was made."""
    params = context.params
    name, part = model_name(params, which), stage_path(params, which).name
    keep_to_share(params)
    if params.agent.warm_start:
        must_be_tunable(name, "warm_start")
    if name == "small":
        yield from _cloned(context, which, part, scratch)
    elif is_fine_tuned(params, which):
        yield from _warm_started(context, which, part, name, scratch)
    else:
        lm = models.load(context, name)
        known = {} if is_remote(name) else size_of(lm)
        yield Made(part, facts={"model": name, **known})


def size_of(lm: Any) -> dict[str, Any]:
    """Parameters and vocabulary of a local model.

    Where there are such: the date its prompts tell, the commit of the hub that it is.
    """
    from qvlib.models.templates import TODAY, prints_date

    told: dict[str, Any] = {"template_date": TODAY.isoformat()} if prints_date(lm.tokenizer) else {}
    commit = models.commit_of(lm)
    told |= {"commit": commit} if commit else {}
    return {"parameters": lm.model.num_parameters(), "vocabulary": len(lm.tokenizer), **told}


def _cloned(context: Context, which: str, part: str, scratch: Path) -> Iterator[Progress | Made]:
    """A small model, trained from scratch by behaviour cloning."""
    from qvlib.models import small
    from qvlib.models.local import LocalModel

    params, how = context.params, context.params.agent
    seed, pairs, tables, facts = _demonstrated(context, which)
    demonstrations = [small.Demonstration(state, action) for state, action in pairs]
    tokenizer = small.train_tokenizer(demonstrations, how.vocabulary, how.description_words)
    width, layers = how.agent_width, how.agent_layers
    if which == "other_agent":
        width, layers = params.other_agent.other_width, params.other_agent.other_layers
    model = small.make_model(tokenizer, width, layers, how.agent_heads, seed, params.dtype)
    model = model.to(params.run.device)
    curve = []
    for row in small.clone(
        model,
        tokenizer,
        demonstrations,
        epochs=how.clone_epochs,
        lr=how.clone_lr,
        batch=how.clone_batch,
        seed=seed,
        folder=scratch,
    ):
        curve.append(row)
        label = f"{which.replace('_', ' ')}, seed {params.run.seed}"
        yield Progress(label, row["step"] + 1, row["steps"])
    facts |= {"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}
    with tempfile.TemporaryDirectory(prefix="qvlib-") as folder:
        LocalModel(model, tokenizer).save(Path(folder) / "model")
        folders = {"model": Parcel(Path(folder) / "model")}
        yield Made(part, folders, {**tables, "curve": curve}, facts)
    clear_elsewhere(params, scratch)


def _warm_started(
    context: Context, which: str, part: str, name: str, scratch: Path
) -> Iterator[Made]:
    """A named model, fine-tuned on demonstrations."""
    params, how = context.params, context.params.agent
    seed, pairs, tables, facts = _demonstrated(context, which)
    lm = models.load(context, name)
    label = f"warm start, {which.replace('_', ' ')}"
    yield from fine_tuned(
        context,
        lm,
        pairs,
        part,
        scratch,
        label,
        tables,
        facts | {"base": name},
        processes(params),
        lr=how.warm_lr,
        epochs=how.clone_epochs,
        seed=seed,
    )


def fine_tuned(
    context: Context,
    lm: Any,
    pairs: Sequence[Any],
    part: str,
    scratch: Path,
    label: str,
    tables: dict[str, Any],
    facts: dict[str, Any],
    threads: int,
    **how: Any,
) -> Iterator[Made]:
    """A model fine-tuned on (state, action) decisions, with the batch and rank of a warm start.

    threads: of this process on the CPU, while it trains.
    """
    from qvlib.agents.fine_tuning import fine_tune, transcripts

    agent = context.params.agent
    rows = list(transcripts(lm, pairs))
    set_threads(context.params, threads)
    tuned, curve, too_long = fine_tune(
        lm,
        rows,
        batch=agent.warm_batch,
        lora_rank=agent.warm_rank,
        folder=scratch,
        label=label,
        **how,
    )
    keep_to_share(context.params)
    curve_table = [
        {"step": row["step"], "steps": len(curve), "action_loss": row["loss"]} for row in curve
    ]
    with tempfile.TemporaryDirectory(prefix="qvlib-") as folder:
        tuned.save(Path(folder) / "model")
        yield Made(
            part,
            {"model": Parcel(Path(folder) / "model")},
            {**tables, "curve": curve_table},
            facts | size_of(tuned) | {"too_long": too_long},
        )
    clear_elsewhere(context.params, scratch)


def _demonstrated(
    context: Context, which: str
) -> tuple[int, list[Any], dict[str, Any], dict[str, Any]]:
    """(seed, decisions, tables, facts) of an agent's demonstrations."""
    import pandas as pd

    params, other = context.params, which == "other_agent"
    tasks = context.uses.other_demonstrations if other else context.uses.demonstrations
    seed = seed_of(params.run.seed, which)
    environment = context.environment
    records = demonstrate(environment, tasks, context.demonstrator(), seed, params.run.batch_size)
    pairs = [
        decision
        for task, record in zip(tasks, records, strict=True)
        for decision in decisions(environment, task, record["actions"])
    ]
    facts = {
        "demonstrations": len(tasks),
        "decisions": len(pairs),
        "demonstrator_reward": float(pd.DataFrame(records)["reward"].mean()),
    }
    return seed, pairs, {"demonstrations": records}, facts


def seed_of(seed: int, which: str) -> int:
    """The seed of an agent of a chain: the second agent's is no other chain's."""
    if which == "agent":
        return seed
    return int(generator(seed, which).integers(2**31, 2**32))


def must_be_tunable(name: str, parameter: str) -> None:
    """Raise QvlibError if an agent is behind a server, where ``parameter`` asks to tune it."""
    if is_remote(name):
        raise QvlibError(
            f"{parameter}: {name} is behind a server and cannot be fine-tuned here; "
            f"unset {parameter}"
        )


def cloning_curves(params: Params) -> dict[str, pd.DataFrame]:
    """The cloned agents' training curves by name; a model that was given has none."""
    stages = {"agent": "agent", "second agent": "other_agent"}
    if not params.other_agent.other_demonstrations:
        del stages["second agent"]
    finished = {name: read_stage(params, stage) for name, stage in stages.items()}
    return {
        name: stage.table("curve") for name, stage in finished.items() if "model" not in stage.facts
    }
