"""The agents: cloned from demonstrations, loaded, sampled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from qvlib import environments
from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import stream
from qvlib.core.episodes import episode
from qvlib.core.filtering import Filtered
from qvlib.core.lockstep import lockstep
from qvlib.core.types import Agent, Environment, Task
from qvlib.models.names import is_remote
from qvlib.pipeline.common import (
    check_device,
    one_thread,
    processes,
    save_model,
    set_threads,
    write_table,
)
from qvlib.pipeline.models import load
from qvlib.pipeline.params import Params
from qvlib.pipeline.world import uses, world
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage


def train_agents(params: Params) -> Stage:
    """Clone the small agents of each chain, the first and the second, side by side; gives the first chain's first.

    Where ``agent`` or ``other_agent`` names a model, that is the agent: fine-tuned on the demonstrations where
    ``warm_start`` is set, else only looked at.

    Raises:
        QvlibError: a name that gives no model with a tokenizer, a GPU that is not there, or ``rft`` is set for an agent behind a server.
    """
    check_device(params)
    if params.rft:
        must_be_tunable(params.agent, "rft")
    world(params)
    stages = ["agent"] + ["other_agent"] * bool(params.other_demonstrations)
    todo = [
        (one, stage)
        for one in params.each_seed()
        for stage in stages
        if not is_complete(one, stage)
    ]
    large = [one for one in todo if _is_fine_tuned(*one)]
    small = [one for one in todo if one not in large]
    bars: dict[str, tqdm] = {}
    made = (
        stream(_clone, small) if processes(params) > 1 else chain(*(_clone(*one) for one in small))
    )
    for name, step, steps in chain(
        made, *(_clone(*one) for one in large)
    ):  # a large model takes all cores by itself
        if name not in bars:
            bars[name] = tqdm(total=steps, desc=f"cloning {name}", unit="batch", position=len(bars))
        bars[name].update(step + 1 - bars[name].n)
    for bar in bars.values():
        bar.close()
    return read_stage(params, "agent")


def _name(params: Params, which: str) -> str:
    return params.other_agent if which == "other_agent" else params.agent


def _is_fine_tuned(params: Params, which: str) -> bool:
    return params.warm_start and _name(params, which) != "small"


def _clone(params: Params, which: str) -> Iterator[tuple[str, int, int]]:
    """Make one agent; yields (its name, step, steps) while it is cloned. A warm start has a bar of its own."""
    environment = world(params)
    name = _name(params, which)
    with open_stage(params, which) as stage:
        if stage.complete:
            return
        one_thread(params)
        if params.warm_start:
            must_be_tunable(name, "warm_start")
        if name == "small":
            yield from _from_scratch(params, stage, environment, which)
        elif _is_fine_tuned(params, which):
            _warm_started(params, stage, environment, which, name)
        else:
            lm = load(params, name)
            known = (
                {}
                if is_remote(name)
                else {"parameters": lm.model.num_parameters(), "vocabulary": len(lm.tokenizer)}
            )
            stage.finish(model=name, **known)


def _from_scratch(
    params: Params, stage: Stage, environment: Environment, which: str
) -> Iterator[tuple[str, int, int]]:
    """A small model cloned from demonstrations."""
    from qvlib.models import small

    seed, shown, facts = _demonstrated(params, stage, environment, which)
    tokenizer = small.train_tokenizer(shown, params.vocabulary)
    other = which == "other_agent"
    width, layers = (
        (params.other_width, params.other_layers)
        if other
        else (params.agent_width, params.agent_layers)
    )
    model = small.make_model(tokenizer, width, layers, params.agent_heads, seed, params.dtype).to(
        params.device
    )
    curve = []
    for row in small.clone(
        model,
        tokenizer,
        shown,
        epochs=params.clone_epochs,
        lr=params.clone_lr,
        batch=params.clone_batch,
        seed=seed,
    ):
        curve.append(row)
        yield f"{which.replace('_', ' ')}, seed {params.seed}", row["step"], row["steps"]
    write_table(stage, "curve", curve)
    save_model(stage, model, tokenizer)
    stage.finish(parameters=model.num_parameters(), vocabulary=len(tokenizer), **facts)


def _warm_started(
    params: Params, stage: Stage, environment: Environment, which: str, name: str
) -> None:
    """A named model, fine-tuned on demonstrations."""
    from qvlib.agents.fine_tuning import fine_tune, transcripts

    seed, shown, facts = _demonstrated(params, stage, environment, which)
    lm = load(params, name)
    set_threads(params, processes(params))
    tuned, curve, dropped = fine_tune(
        lm,
        list(transcripts(lm, ((d.state, d.action) for d in shown))),
        lr=params.warm_lr,
        epochs=params.clone_epochs,
        batch=params.warm_batch,
        seed=seed,
        lora_rank=params.warm_rank,
        folder=stage.path / "training",
        label=f"warm start, {which.replace('_', ' ')}",
    )
    one_thread(params)
    write_table(
        stage,
        "curve",
        [{"step": row["step"], "steps": len(curve), "action_loss": row["loss"]} for row in curve],
    )
    save_model(stage, tuned.model, tuned.tokenizer)
    stage.finish(
        base=name,
        parameters=tuned.model.num_parameters(),
        vocabulary=len(tuned.tokenizer),
        too_long=dropped,
        **facts,
    )


def _demonstrated(
    params: Params, stage: Stage, environment: Environment, which: str
) -> tuple[int, list[Any], dict[str, Any]]:
    """(seed, decisions, facts) of an agent's demonstrations, which are also written: ``demonstrations.parquet``."""
    dealt, other = uses(params, environment), which == "other_agent"
    tasks = dealt.other_demonstrations if other else dealt.demonstrations
    seed = params.seed + 1 if other else params.seed
    jobs = (episode(environment, task, seed) for task in tasks)
    by_task = {
        r["task"]: r
        for r in lockstep(jobs, environments.demonstrator(params, environment), params.batch_size)
    }
    records = [by_task[task.id] for task in tasks]
    write_table(stage, "demonstrations", records)
    shown = list(decisions(environment, tasks, records))
    return (
        seed,
        shown,
        {
            "demonstrations": len(tasks),
            "decisions": len(shown),
            "demonstrator_reward": float(pd.DataFrame(records)["reward"].mean()),
        },
    )


def must_be_tunable(name: str, parameter: str) -> None:
    """Raise QvlibError if an agent is behind a server, where ``parameter`` asks to fine-tune it."""
    if is_remote(name):
        raise QvlibError(
            f"{parameter}: {name} is behind a server and cannot be fine-tuned here; unset {parameter}"
        )


def cloning_curves(params: Params) -> dict[str, pd.DataFrame]:
    """The cloned agents' training curves by name; a model that was given has none."""
    stages = {"agent": "agent", "second agent": "other_agent"}
    if not params.other_demonstrations:
        del stages["second agent"]
    found = {name: read_stage(params, stage) for name, stage in stages.items()}
    return {
        name: stage.table("curve") for name, stage in found.items() if "model" not in stage.facts
    }


def decisions(
    environment: Environment, tasks: Sequence[Task], records: Sequence[dict[str, Any]]
) -> Iterable[Any]:
    """Replay episodes into (state, action) demonstrations."""
    from qvlib.models.small import Demonstration

    for task, record in zip(tasks, records, strict=True):
        state = environment.reset(task)
        for action in record["actions"]:
            yield Demonstration(state, action)
            state = environment.step(state, action)


def guide(params: Params, environment: Environment, agent: Agent | None = None) -> Agent:
    """An agent that finds its way before anything is trained: the scripted demonstrator.

    In a world without one, ``agent``, or the model that the parameter ``agent`` names.

    Raises:
        QvlibError: there is no demonstrator, and no model either.
    """
    if environments.has_demonstrator(params, environment) or (
        agent is None and params.agent == "small"
    ):
        return Filtered(environments.demonstrator(params, environment), environment)
    return agent or sampler(params, environment, load(params, params.agent))


def sampler(params: Params, environment: Environment, lm: Any, greedy: bool = False) -> Agent:
    """The agent of a model: sampled as the parameters say, refused and no-effect actions redrawn."""
    sampled = lm.agent(params.temperature, params.top_p)
    agent = lm.agent(0.0, 1.0) if greedy else sampled
    if not params.filter_actions:
        return agent
    # What greedy decoding would refuse again and again is drawn from the distribution instead.
    return Filtered(agent, environment, fallback=sampled if greedy else None)
