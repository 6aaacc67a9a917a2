"""The stages of a run: each reads the stages before it, works in its own folder, and resumes.

data -> agent -> trees -> pairs -> Q model (and controls) -> episodes. A notebook calls one of these and looks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from . import environments
from .errors import QvlibError
from .evaluate import episode, tree_episode
from .lockstep import lockstep
from .mcts import SearchConfig, search, tree_record
from .parallel import process_count, slices, stream
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
    if not is_complete(params, "data"):
        with open_stage(params, "data") as stage:
            if not params.data_dir:
                environments.make_data(params, stage.path)
            environment = environments.make(params, stage.path)
            splits = {s: environment.tasks(s) for s in ("train", "dev", "test")}
            check_disjoint(splits)
            stage.manifest["data_hashes"] = environment.data_hashes()
            stage.finish(splits=[split_row(s, t) for s, t in splits.items()], skipped_goals=environment.skipped)
            return environment
    stage = read_stage(params, "data")
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


def train_agents(params: Params) -> Stage:
    """Clone the small agents, the first and the second, side by side, unless they are done; gives the first."""
    world(params)
    stages = ["agent"] + ["other_agent"] * bool(params.other_demonstrations)
    todo = [(params, stage) for stage in stages if not is_complete(params, stage)]
    bars: dict[str, tqdm] = {}
    for which, step, steps in stream(_clone, todo) if _processes(params) > 1 else chain(*(_clone(*one) for one in todo)):
        if which not in bars:
            bars[which] = tqdm(total=steps, desc=f"cloning {which.replace('_', ' ')}", unit="batch", position=len(bars))
        bars[which].update(step + 1 - bars[which].n)
    for bar in bars.values():
        bar.close()
    return read_stage(params, "agent")


def _clone(params: Params, which: str) -> Iterator[tuple[str, int, int]]:
    """Clone one agent from demonstrations; yields (stage, step, steps)."""
    from .models import small

    environment = world(params)
    other = which == "other_agent"
    with open_stage(params, which) as stage:
        if stage.complete:
            return
        _one_thread(params)
        dealt = uses(params, environment)
        tasks = dealt.other_demonstrations if other else dealt.demonstrations
        seed = params.seed + 1 if other else params.seed
        shopper = environments.demonstrator(params, environment)
        jobs = (episode(environment, task, seed) for task in tasks)
        by_task = {record["task"]: record for record in lockstep(jobs, shopper, params.batch_size)}
        records = [by_task[task.id] for task in tasks]
        _write_table(stage, "demonstrations", records)
        shown = list(decisions(environment, tasks, records))
        tokenizer = small.train_tokenizer(shown, params.vocabulary)
        width, layers = (params.other_width, params.other_layers) if other else (params.agent_width, params.agent_layers)
        model = small.make_model(tokenizer, width, layers, params.agent_heads, seed).to(params.device)
        curve = []
        for row in small.clone(model, tokenizer, shown, epochs=params.clone_epochs, lr=params.clone_lr,
                               batch=params.clone_batch, seed=seed):
            curve.append(row)
            yield which, row["step"], row["steps"]
        _write_table(stage, "curve", curve)
        _save_model(stage, model, tokenizer)
        stage.finish(parameters=model.num_parameters(), vocabulary=len(tokenizer), demonstrations=len(tasks),
                     decisions=len(shown), demonstrator_reward=float(pd.DataFrame(records)["reward"].mean()))


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

    _one_thread(params)
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
        todo = [task for task in tasks if task.id not in done]
        parts = slices(todo, _processes(params))
        with tqdm(total=len(tasks), initial=len(done), desc="searching", unit="task") as bar:
            for record in stream(_search, [(params, part) for part in parts]):
                stage.append("trees", {"run": stage.path.name, **record})
                bar.update()
        stage.to_parquet("trees", ["task", "node"], explode="nodes")
        stage.finish(tasks=len(tasks))
    return stage


def _search(params: Params, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Search tasks; yields their trees as records."""
    environment = world(params)
    agent = sampler(params, environment, load_model(params))
    jobs = (search(environment, task, search_config(params), params.seed) for task in tasks)
    yield from map(tree_record, lockstep(jobs, agent, params.batch_size))


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
    """Fit the Q model to the preference pairs, and the controls beside it, unless they are done; gives the Q model.

    ``q_model`` holds ``model/`` and ``curve.parquet``. ``control`` holds the same training on the same
    pairs with each winner drawn by a coin, ``model-<k>/`` and ``curve-<k>.parquet`` for each shuffle.
    """
    todo = [(params, stage) for stage in ("q_model", "control") if not is_complete(params, stage)]
    models = 1 + params.control_shuffles
    with tqdm(total=models, initial=models if not todo else 0, desc="fitting Q model and controls", unit="model") as bar:
        for _ in stream(_fit_stage, todo) if _processes(params) > 1 else chain(*(_fit_stage(*one) for one in todo)):
            bar.update()
    return read_stage(params, "q_model")


def _fit_stage(params: Params, which: str) -> Iterator[str]:
    """Fit the models of a stage; yields their names."""
    _one_thread(params)
    train, held = hold_out(load_pairs(params), params.heldout_share, params.seed)
    with open_stage(params, which) as stage:
        if which == "q_model":
            facts = _fit(params, stage, train, held, "model", "DPO")
            yield "model"
        else:
            facts = {"controls": []}
            for k in range(params.control_shuffles):
                shuffled = shuffle_winners(train, 1000 * (k + 1) + params.seed)
                facts["controls"].append(_fit(params, stage, shuffled, held, f"model-{k}", f"control {k}"))
                yield f"model-{k}"
        stage.finish(**facts)


def _fit(params: Params, stage: Stage, train: Sequence[Pair], held: Sequence[Pair], name: str, label: str) -> dict[str, Any]:
    if not train:
        raise QvlibError("all preference pairs are held out; lower heldout_share or collect more trees")
    environment, lm = world(params), load_model(params)
    options: dict[str, Any] = {}
    if params.trainer == "trl":
        from .trl_training import train as fit

        options = {"lora_rank": params.lora_rank, "folder": stage.path / f"{name}-trl"}
    else:
        from .dpo import train as fit
    tuned, curve = fit(lm, encode(environment, lm, train), encode(environment, lm, held), beta=params.beta,
                       lr=params.dpo_lr, epochs=params.dpo_epochs, batch=params.dpo_batch, rule=params.log_prob,
                       seed=params.seed, label=label, **options)
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


def arm_names(params: Params) -> list[str]:
    """The arms of the evaluation; a control's number comes after a slash."""
    second = ["other_agent_sample", "other_agent_q_n5"] if params.other_demonstrations else []
    controls = [f"control_q_n{n}/{k}" for k in range(params.control_shuffles) for n in (5, 10)]
    return ["sample", "greedy", "random_n5", "likely_n5", "q_n5", "q_n10", "tuned_policy", *second, *controls, "mcts"]


def arms(params: Params, environment: Environment) -> dict[str, Agent]:
    """The agent of each arm; ``mcts`` searches with the environment, by the agent sampled once.

    Every arm draws through the same filter and from the same keys.
    """
    lm = load_model(params)
    q = replace(load_q(params), reference=lm)
    sample = sampler(params, environment, lm)

    def best(agent: Agent, q_model: QModel, n: int) -> Agent:
        return Reranked(agent, q_model, n, params.rerank_temperature, params.prior_weight)

    found: dict[str, Agent] = {
        "sample": sample,
        "greedy": sampler(params, environment, lm, greedy=True),
        "random_n5": Reranked(sample, None, 5, temperature=1.0),
        "likely_n5": Reranked(sample, None, 5, prior_weight=1.0),
        "q_n5": best(sample, q, 5),
        "q_n10": best(sample, q, 10),
        "tuned_policy": sampler(params, environment, q.policy),
    }
    if params.other_demonstrations:
        second = load_model(params, "other_agent")
        found["other_agent_sample"] = sampler(params, environment, second)
        found["other_agent_q_n5"] = best(found["other_agent_sample"], q, 5)
    for k in range(params.control_shuffles):
        control = replace(load_q(params, f"model-{k}", "control"), reference=lm)
        found |= {f"control_q_n{n}/{k}": best(sample, control, n) for n in (5, 10)}
    return {name: found.get(name, sample) for name in arm_names(params)}


def play(params: Params) -> Stage:
    """Play every arm on the test tasks: ``episodes.jsonl``, a line an episode; then ``episodes.parquet``."""
    environment = world(params)
    with open_stage(params, "episodes") as stage:
        if stage.complete:
            return stage
        tasks = uses(params, environment).test
        done = stage.done("episodes", ("arm", "task"))
        names = arm_names(params)
        parts = [(params, part, done) for part in slices(tasks, _processes(params))]
        with tqdm(total=len(names) * len(tasks), initial=len(done), desc="playing", unit="episode") as bar:
            for record in stream(_episodes, parts):
                stage.append("episodes", record)
                bar.set_postfix_str(record["arm"], refresh=False)
                bar.update()
        stage.to_parquet("episodes", ["arm", "task"])
        stage.finish(test=split_row("test", tasks), arms=names)
    return stage


def _episodes(params: Params, tasks: Sequence[Task], done: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Play what is not done of every arm on these tasks; yields the episodes' records."""
    environment = world(params)
    config = replace(search_config(params), iterations=params.mcts_iterations)
    for arm, agent in arms(params, environment).items():
        todo = [task for task in tasks if (arm, task.id) not in done]
        if arm == "mcts":
            jobs = (search(environment, task, config, params.seed) for task in todo)
            results = map(tree_episode, lockstep(jobs, agent, params.batch_size))
        else:
            jobs = (episode(environment, task, params.seed, trace=arm == "q_n5") for task in todo)
            results = lockstep(jobs, agent, params.batch_size)
        for record in results:
            yield {"arm": arm, **record}


# -- small things ---------------------------------------------------------------------------


def is_complete(params: Params, stage: str) -> bool:
    """Whether a stage is there and finished."""
    try:
        return read_stage(params, stage).complete
    except QvlibError:
        return False


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


def _processes(params: Params) -> int:
    return process_count(params.processes, params.device)


def _one_thread(params: Params) -> None:
    """On the CPU a process keeps to one core: threads that wait for each other cost more than they do."""
    if params.device == "cpu":
        import torch

        torch.set_num_threads(1)
