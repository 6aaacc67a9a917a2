"""The stages of a run: each reads the stages before it, works in its own folder, and resumes.

data -> agent -> trees -> pairs -> Q model (and controls) -> episodes. A notebook calls one of these and looks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from . import environments
from .errors import QvlibError
from .evaluate import episode, tree_episode
from .lockstep import lockstep
from .mcts import SearchConfig, search, tree_record
from .params import Params
from .preferences import Pair, build_pairs, hold_out, shuffle_winners
from .reranker import Filtered, Reranked
from .runs import Stage, open_stage, read_stage
from .types import Agent, Environment, QModel, Task

# -- the world ------------------------------------------------------------------------------


def world(params: Params) -> Environment:
    """The environment with its tasks; embedded data are written first where needed.

    Raises:
        QvlibError: whatever is wrong with the data files or the splits.
    """
    with open_stage(params, "data") as stage:
        if not stage.complete:
            if not params.data_dir:
                environments.make_data(params, stage.path)
            environment = environments.make(params, stage.path)
            splits = {s: environment.tasks(s) for s in ("train", "dev", "test")}
            check_disjoint(splits)
            stage.manifest["data_hashes"] = environment.data_hashes()
            stage.finish(splits=[split_row(s, t) for s, t in splits.items()], skipped_goals=environment.skipped)
            return environment
        environment = environments.make(params, stage.path)
        if stage.manifest["data_hashes"] != environment.data_hashes():
            raise QvlibError(f"the data files of {stage.path.name} have changed since the run began; restore them, "
                             f"or delete that folder and those built on it")
        return environment


def check_disjoint(splits: dict[str, Sequence[Task]]) -> None:
    """Raise QvlibError if two splits share a task or a group (a product)."""
    names = list(splits)
    for i, a in enumerate(names):
        for b in names[i + 1:]:
            shared = {t.group for t in splits[a]} & {t.group for t in splits[b]}
            if shared:
                raise QvlibError(f"splits {a} and {b} share {len(shared)} groups, such as {min(shared)!r}; "
                                 "split by group, so that test tasks are unseen")


def split_row(split: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """Size of a split and a hash of its task ids, for tables."""
    import hashlib

    ids = "\n".join(sorted(t.id for t in tasks))
    return {"split": split, "tasks": len(tasks), "groups": len({t.group for t in tasks}),
            "ids": hashlib.blake2b(ids.encode(), digest_size=4).hexdigest()}


@dataclass(frozen=True)
class Uses:
    """Which tasks of the splits a run uses for what; no task has two uses."""

    demonstrations: Sequence[Task]
    other_demonstrations: Sequence[Task]
    search: Sequence[Task]
    test: Sequence[Task]


def uses(params: Params, environment: Environment) -> Uses:
    """Deal the tasks out: searches from the end of train, demonstrations from its beginning.

    Raises:
        QvlibError: a split is too small for what the parameters ask.
    """
    train, test = environment.tasks("train"), environment.tasks("test")
    first, second = params.demonstrations, params.demonstrations + params.other_demonstrations
    for what, asked, has in (("train", second + params.train_tasks, len(train)), ("test", params.test_tasks, len(test))):
        if asked > has:
            names = "demonstrations + other_demonstrations + train_tasks" if what == "train" else "test_tasks"
            raise QvlibError(f"{names} = {asked}, but the {what} split has {has} tasks; lower them, "
                             "or raise catalogue_products")
    return Uses(train[:first], train[first:second], train[len(train) - params.train_tasks:], test[:params.test_tasks])


# -- the agents -----------------------------------------------------------------------------


def train_agent(params: Params, which: str = "agent") -> Stage:
    """Clone the small agent (``which`` = agent or other_agent) from demonstrations, unless it is done."""
    from .models import small

    environment = world(params)
    other = which == "other_agent"
    with open_stage(params, which) as stage:
        if stage.complete:
            return stage
        _torch(params)
        dealt = uses(params, environment)
        tasks = dealt.other_demonstrations if other else dealt.demonstrations
        seed = params.seed + 1 if other else params.seed
        records = _in_order(_play(params, environment, environments.demonstrator(params, environment), tasks, seed), tasks)
        _write_table(stage, "demonstrations", records)
        shown = list(decisions(environment, tasks, records))
        tokenizer = small.train_tokenizer(shown, params.vocabulary)
        width, layers = (params.other_width, params.other_layers) if other else (params.agent_width, params.agent_layers)
        model = small.make_model(tokenizer, width, layers, params.agent_heads, seed, params.dtype).to(params.device)
        curve = small.clone(model, tokenizer, shown, epochs=params.clone_epochs, lr=params.clone_lr,
                            batch=params.clone_batch, seed=seed)
        _write_table(stage, "curve", curve)
        _save_model(stage, model, tokenizer)
        stage.finish(parameters=model.num_parameters(), vocabulary=len(tokenizer), demonstrations=len(tasks),
                     decisions=len(shown), demonstrator_reward=float(pd.DataFrame(records)["reward"].mean()))
    return stage


def decisions(environment: Environment, tasks: Sequence[Task], records: Sequence[dict[str, Any]]) -> Iterable[Any]:
    """Replay episodes into (state, action) demonstrations."""
    from .models.small import Demonstration

    for task, record in zip(tasks, records, strict=True):
        state = environment.reset(task)
        for action in record["actions"]:
            yield Demonstration(state, action)
            state = environment.step(state, action)


def load_model(params: Params, which: str = "agent"):
    """The language model behind an agent: a folder or hub name given as ``agent``, else the cloned one."""
    from .models import local

    _torch(params)
    folder = read_stage(params, which).path / "model"
    return local.load(folder, dtype=params.dtype, device=params.device, max_action_tokens=params.max_action_tokens)


def sampler(params: Params, environment: Environment, lm: Any, greedy: bool = False) -> Agent:
    """The agent of a model: sampled as the parameters say, refused and no-effect actions redrawn."""
    from .models.local import LocalAgent

    agent = LocalAgent(lm, 0.0, 1.0) if greedy else LocalAgent(lm, params.temperature, params.top_p)
    if not params.filter_actions:
        return agent
    if greedy:  # what greedy decoding would refuse again and again is drawn from the distribution instead
        return Filtered(agent, environment, fallback=LocalAgent(lm, params.temperature, params.top_p))
    return Filtered(agent, environment)


# -- search and preferences -----------------------------------------------------------------


def search_config(params: Params) -> SearchConfig:
    """The search of collecting."""
    return SearchConfig(params.iterations, params.expand_n, params.exploration, params.uct, params.stop_at_success,
                        params.invalid_value, params.timeout_value)


def collect(params: Params) -> Stage:
    """Search the training tasks; a tree a line in ``trees.jsonl``, a node a row in ``trees.parquet``."""
    environment = world(params)
    with open_stage(params, "trees") as stage:
        if stage.complete:
            return stage
        tasks = uses(params, environment).search
        done = stage.done("trees")
        agent = sampler(params, environment, load_model(params))
        jobs = (search(environment, task, search_config(params), params.seed) for task in tasks if task.id not in done)
        with tqdm(total=len(tasks), initial=len(done), desc="searching", unit="task") as bar:
            for tree in lockstep(jobs, agent, params.batch_size):
                stage.append("trees", tree_record(tree, stage.path.name))
                bar.update()
        stage.to_parquet("trees", ["task", "node"], explode="nodes")
        stage.finish(tasks=len(tasks))
    return stage


def make_pairs(params: Params) -> Stage:
    """Preference pairs of the collected trees, in the trees' task order: ``pairs.parquet``."""
    with open_stage(params, "pairs") as stage:
        if not stage.complete:
            trees = sorted(read_stage(params, "trees").records("trees"), key=lambda t: t["task"])
            pairs = build_pairs(trees, params.pairs, params.min_margin, params.min_visits)
            if not pairs:
                raise QvlibError("no preference pairs in these trees; lower min_margin or min_visits, or raise "
                                 "train_tasks or iterations")
            _write_table(stage, "pairs", [p.record() for p in pairs])
            stage.finish(pairs=len(pairs), tasks=len({p.task for p in pairs}), trees=len(trees))
    return stage


def load_pairs(params: Params) -> list[Pair]:
    """The pairs of ``make_pairs``."""
    rows = read_stage(params, "pairs").table("pairs").to_dict("records")
    return [Pair(**{**row, "path": tuple(row["path"])}) for row in rows]


# -- the Q model ----------------------------------------------------------------------------


def train_q(params: Params) -> Stage:
    """Fit the Q model to the preference pairs: ``model/`` and ``curve.parquet``."""
    with open_stage(params, "q_model") as stage:
        if not stage.complete:
            train, held = hold_out(load_pairs(params), params.heldout_share, params.seed)
            stage.finish(**_fit(params, stage, train, held, "model", "DPO"))
    return stage


def train_controls(params: Params) -> Stage:
    """The same training on the same pairs with each winner drawn by a coin: ``model-<k>/``."""
    with open_stage(params, "control") as stage:
        if not stage.complete:
            train, held = hold_out(load_pairs(params), params.heldout_share, params.seed)
            facts = [_fit(params, stage, shuffle_winners(train, 1000 * (k + 1) + params.seed), held, f"model-{k}",
                          f"control {k + 1}/{params.control_shuffles}") for k in range(params.control_shuffles)]
            stage.finish(controls=facts)
    return stage


def _fit(params: Params, stage: Stage, train: Sequence[Pair], held: Sequence[Pair], name: str, label: str) -> dict[str, Any]:
    from . import dpo

    if not train:
        raise QvlibError("all preference pairs are held out; lower heldout_share or collect more trees")
    environment, lm = world(params), load_model(params)
    rows, held_rows = encode(environment, lm, train), encode(environment, lm, held)
    if params.trainer == "trl":
        from .trl_training import train as fit
    else:
        fit = dpo.train
    tuned, curve = fit(lm, rows, held_rows, beta=params.beta, lr=params.dpo_lr, epochs=params.dpo_epochs,
                       batch=params.dpo_batch, rule=params.log_prob, seed=params.seed, label=label,
                       **({"lora_rank": params.lora_rank, "folder": stage.path / f"{name}-trl"} if params.trainer == "trl" else {}))
    _write_table(stage, name.replace("model", "curve"), curve)
    _save_model(stage, tuned.model, lm.tokenizer, name)
    last = [row for row in curve if row["split"] == "held-out"]
    return {"pairs": len(train), "held_out_pairs": len(held), "held_out_accuracy": last[-1]["accuracy"] if last else None}


def encode(environment: Environment, lm: Any, pairs: Sequence[Pair]) -> list[Any]:
    """Pairs as token ids, by the prompts the agent reads."""
    from .dpo import encode_pairs, rebuild

    tasks = {t.id: t for t in environment.tasks("train")}
    unknown = next((p.task for p in pairs if p.task not in tasks), None)
    if unknown is not None:
        raise QvlibError(f"pair of task {unknown!r}: no such training task; use trees made on the same data")
    return encode_pairs(lm, [rebuild(environment, tasks[p.task], p.path) for p in pairs], pairs)


def load_q(params: Params, name: str = "model", stage: str = "q_model") -> QModel:
    """A trained Q model with the agent's model as its reference."""
    from .models import local
    from .q_model import LogRatio

    tuned = local.load(read_stage(params, stage).path / name, dtype=params.dtype, device=params.device)
    return LogRatio(tuned, load_model(params), params.log_prob)


# -- episodes -------------------------------------------------------------------------------


def arms(params: Params, environment: Environment) -> dict[str, Callable[[], Agent]]:
    """The arms of the evaluation by name, each made when it is played; ``mcts`` is not an agent and not here.

    Every arm draws through the same filter and from the same keys.
    """
    lm, other = load_model(params), load_model(params, "other_agent")
    q = replace(load_q(params), reference=lm)
    sample, second = sampler(params, environment, lm), sampler(params, environment, other)

    def best(agent: Agent, q_model: QModel | None, n: int) -> Agent:
        return Reranked(agent, q_model, n, params.rerank_temperature, params.prior_weight)

    found: dict[str, Callable[[], Agent]] = {
        "sample": lambda: sample,
        "greedy": lambda: sampler(params, environment, lm, greedy=True),
        "random_n5": lambda: Reranked(sample, None, 5, temperature=1.0),
        "likely_n5": lambda: Reranked(sample, None, 5, prior_weight=1.0),
        "q_n5": lambda: best(sample, q, 5),
        "q_n10": lambda: best(sample, q, 10),
        "tuned_policy": lambda: sampler(params, environment, q.policy),
        "other_agent_sample": lambda: second,
        "other_agent_q_n5": lambda: best(second, q, 5),
    }
    for k in range(params.control_shuffles):
        for n in (5, 10):
            found[f"control_q_n{n}/{k}"] = lambda k=k, n=n: best(
                sample, replace(load_q(params, f"model-{k}", "control"), reference=lm), n)
    return found


def play(params: Params) -> Stage:
    """Play every arm on the test tasks: ``episodes.jsonl``, a line an episode; then ``episodes.parquet``."""
    environment = world(params)
    with open_stage(params, "episodes") as stage:
        if stage.complete:
            return stage
        tasks = uses(params, environment).test
        done = stage.done("episodes", ("arm", "task"))
        made = arms(params, environment)
        for number, (arm, make) in enumerate([*made.items(), ("mcts", None)], start=1):
            todo = [t for t in tasks if (arm, t.id) not in done]
            if not todo:
                continue
            label = f"{arm} ({number}/{len(made) + 1})"
            if make is None:
                results = _search_test(params, environment, todo)
            else:
                results = lockstep((episode(environment, t, params.seed, trace=arm == "q_n5") for t in todo), make(),
                                   params.batch_size)
            for record in tqdm(results, total=len(todo), desc=label, unit="task"):
                stage.append("episodes", {"arm": arm, **record})
        stage.to_parquet("episodes", ["arm", "task"])
        stage.finish(test=split_row("test", tasks), arms=[*made, "mcts"])
    return stage


def _search_test(params: Params, environment: Environment, tasks: Sequence[Task]) -> Iterable[dict[str, Any]]:
    config = replace(search_config(params), iterations=params.mcts_iterations)
    agent = sampler(params, environment, load_model(params))
    jobs = (search(environment, task, config, params.seed) for task in tasks)
    return (tree_episode(tree) for tree in lockstep(jobs, agent, params.batch_size))


# -- small things ---------------------------------------------------------------------------


def _play(params: Params, environment: Environment, agent: Agent, tasks: Sequence[Task], seed: int) -> Iterable[dict[str, Any]]:
    return tqdm(lockstep((episode(environment, t, seed) for t in tasks), agent, params.batch_size), total=len(tasks),
                desc="demonstrating", unit="task")


def _in_order(records: Iterable[dict[str, Any]], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    by_task = {r["task"]: r for r in records}
    return [by_task[t.id] for t in tasks]


def _write_table(stage: Stage, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """A table made at once, whole or not at all."""
    temporary = stage.path / f".{name}.{os.getpid()}.tmp"
    pd.DataFrame(rows).to_parquet(temporary, index=False)
    os.replace(temporary, stage.path / f"{name}.parquet")


def _save_model(stage: Stage, model: Any, tokenizer: Any, name: str = "model") -> None:
    """Save a model and tokenizer as transformers does, then move the folder into place whole."""
    temporary, final = stage.path / f".{name}.tmp", stage.path / name
    for folder in (temporary, final):
        shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    os.replace(temporary, final)


def _torch(params: Params) -> None:
    import torch

    torch.set_num_threads(params.threads or os.cpu_count() or 1)


__all__ = ["Path", "arms", "collect", "decisions", "load_model", "load_pairs", "load_q", "make_pairs", "play", "sampler",
           "search_config", "train_agent", "train_controls", "train_q", "uses", "world"]
