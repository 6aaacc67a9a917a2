"""The arms of the evaluation, and playing them on the test tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm

from qvlib.base.executors.processes import slices, stream
from qvlib.core.episodes import best_episode, episode, tree_episode
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import search
from qvlib.core.reranker import Reranked
from qvlib.core.types import Agent, Environment, QModel, Task
from qvlib.models.names import is_remote
from qvlib.pipeline.agents import sampler
from qvlib.pipeline.common import for_each_seed, processes
from qvlib.pipeline.models import load_model
from qvlib.pipeline.params import Params
from qvlib.pipeline.q import load_q
from qvlib.pipeline.rft import train_rft
from qvlib.pipeline.trees import search_config, search_select
from qvlib.pipeline.world import split_row, uses, world
from qvlib.runs.stage import Stage, open_stage

MakeArms = Callable[[Params, Environment], dict[str, Agent]]


def arm_names(params: Params) -> list[str]:
    """The arms of the evaluation; a control's number comes after a slash."""
    second = ["other_agent_sample", "other_agent_q_n5"] if params.other_demonstrations else []
    controls = [f"control_q_n{n}/{k}" for k in range(params.control_shuffles) for n in (5, 10)]
    likely = (
        [] if is_remote(params.agent) else ["likely_n5"]
    )  # servers tell no log-probabilities that could be compared
    rft = ["rft"] if params.rft else []
    best = ["best_of_n"] if params.best_of else []
    return [
        "sample",
        "greedy",
        "random_n5",
        *likely,
        *rft,
        "q_n5",
        "q_n10",
        "tuned_policy",
        *second,
        *controls,
        "mcts",
        *best,
    ]


def arms(params: Params, environment: Environment) -> dict[str, Agent]:
    """The agent of each arm; ``mcts`` and ``best_of_n`` ask the environment, by the agent sampled once.

    Every arm draws through the same filter and from the same keys.
    """
    lm = load_model(params)
    q = load_q(params, agent=lm)
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
    if params.rft:
        found["rft"] = sampler(params, environment, load_model(params, "rft"))
    if params.other_demonstrations:
        second = load_model(params, "other_agent")
        found["other_agent_sample"] = sampler(params, environment, second)
        found["other_agent_q_n5"] = best(found["other_agent_sample"], q, 5)
    for k in range(params.control_shuffles):
        control = load_q(params, f"model-{k}", "control", reference=q.reference)
        found |= {f"control_q_n{n}/{k}": best(sample, control, n) for n in (5, 10)}
    return {name: found.get(name, sample) for name in arm_names(params)}


@for_each_seed
def play(params: Params) -> Stage:
    """Play every arm on the test tasks: ``episodes.jsonl``, a line an episode; then ``episodes.parquet``.

    The agent of the arm ``rft`` is made first, where it is missing.
    """
    if params.rft:
        train_rft(params)
    return play_arms(params, "episodes", arms, arm_names(params), uses(params, world(params)).test)


def play_arms(
    params: Params, which: str, make: MakeArms, names: Sequence[str], tasks: Sequence[Task]
) -> Stage:
    """Play the arms ``names`` of a stage on tasks, divided among the processes; ``make`` gives the agent of each."""
    with open_stage(params, which) as stage:
        if stage.complete:
            return stage
        done = stage.done("episodes", ("arm", "task"))
        parts = [(params, make, part, done) for part in slices(tasks, processes(params))]
        with tqdm(
            total=len(names) * len(tasks), initial=len(done), desc="playing", unit="episode"
        ) as bar:
            for record in stream(_episodes, parts):
                stage.append("episodes", record)
                bar.set_postfix_str(record["arm"], refresh=False)
                bar.update()
        stage.to_parquet("episodes", ["arm", "task"])
        stage.finish(
            test=split_row("test" if which == "episodes" else "dev", tasks), arms=list(names)
        )
    return stage


def _episodes(
    params: Params, make: MakeArms, tasks: Sequence[Task], done: set[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """Play what is not done of every arm on these tasks; yields the episodes' records."""
    environment = world(params)
    config = replace(search_config(params), iterations=params.mcts_iterations)
    select = search_select(params)
    for arm, agent in make(params, environment).items():
        todo = [task for task in tasks if (arm, task.id) not in done]
        if arm == "mcts":
            jobs = (search(environment, task, config, params.seed, select=select) for task in todo)
            results = map(tree_episode, lockstep(jobs, agent, params.batch_size))
        elif arm == "best_of_n":
            jobs = (best_episode(environment, task, params.seed, params.best_of) for task in todo)
            results = lockstep(jobs, agent, params.batch_size)
        else:
            jobs = (episode(environment, task, params.seed, trace=arm == "q_n5") for task in todo)
            results = lockstep(jobs, agent, params.batch_size)
        for record in results:
            yield {"arm": arm, **record}
