"""Episodes of an agent, and walking given actions again: one trial each, no undo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from typing import Any

from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import Tree
from qvlib.core.types import Agent, Cost, Environment, Job, Proposal, Request, State, Task, total


@dataclass(frozen=True, slots=True)
class Episode:
    """One trial of a task: terminal reward in [0, 1] (0 if cut off), actions, cost, trace."""

    task: Task
    reward: float
    done: bool
    actions: tuple[str, ...]
    cost: Cost
    trace: list[dict[str, Any]] | None = None

    def record(self) -> dict[str, Any]:
        """As plain data; ``trace`` only where there is one."""
        record = {
            "task": self.task.id,
            "group": self.task.group,
            **self.cost.drawn(),
            "reward": self.reward,
            "done": self.done,
            "env_steps": self.cost.env_steps,
            "actions": list(self.actions),
        }
        return record if self.trace is None else record | {"trace": self.trace}


def episode(
    environment: Environment, task: Task, seed: int, trace: bool = False, trial: int = 0
) -> Job[dict[str, Any]]:
    """Let the agent act until the end or ``max_steps``; a generator for ``lockstep``.

    Every arm draws from the keys (seed, task, step), so that two arms in the same state see the
    same first samples: differences between arms are then differences of choice.
    Returns a record: task, reward in [0, 1] (0 if cut off), steps, and the cost. ``trace`` keeps
    each step's page and candidates. Another ``trial`` draws anew.
    """
    played = yield from _play(environment, task, seed, trial)
    return (played if trace else replace(played, trace=None)).record()


def best_episode(
    environment: Environment, task: Task, seed: int, trials: int
) -> Job[dict[str, Any]]:
    """The best of several whole episodes by their terminal reward (Best-of-N), at the cost of all.

    What the agent could reach by luck, told by the environment: no agent of one trial. ``trials``
    tells what fewer episodes would have earned.
    """
    played = []
    for trial in range(trials):
        played.append((yield from _play(environment, task, seed, trial)))
    best = max(played, key=lambda episode: episode.reward)
    best = replace(best, cost=total(episode.cost for episode in played), trace=None)
    return best.record() | {"trials": trials_of((each.cost, each.reward) for each in played)}


def trials_of(played: Iterable[tuple[Cost, float]]) -> list[list[float]]:
    """After each trial: [steps in the environment, best reward, tokens] so far.

    played: the cost and the reward of each.
    """
    found, spent, best = [], Cost(), 0.0
    for cost, reward in played:
        spent, best = spent + cost, max(best, reward)
        found.append([spent.env_steps, best, spent.tokens + spent.prompt_tokens])
    return found


def _play(environment: Environment, task: Task, seed: int, trial: int) -> Job[Episode]:
    """One episode, with its trace."""
    state, cost, trace = environment.reset(task), Cost(), []
    while not state.done and state.depth < environment.max_steps:
        node = f"{state.depth}/trial {trial}" if trial else str(state.depth)
        best = (yield Request(state, 1, (seed, task.id, node)))[0]
        cost += best.cost + Cost(proposals=max(1, len(best.considered)), env_steps=1)
        trace.append(_choice(state, best))
        state = environment.step(state, best.action)
    actions = tuple(step.action for step in state.history)
    return Episode(task, float(state.reward), state.done, actions, cost, trace)


def _choice(state: State, best: Proposal) -> dict[str, Any]:
    """A step of a trace: what the agent read, what it executed, and what it chose that from."""
    return {
        "observation": state.observation,
        "action": best.action,
        "q": best.q,
        "candidates": [
            {"action": c.action, "q": c.q, "log_prob": c.log_prob} for c in best.considered
        ],
    }


def tree_episode(tree: Tree) -> dict[str, Any]:
    """The record of a searched task: the best episode found, with all the search's cost.

    ``rises`` is the search's anytime curve: [steps in the environment so far, reward, tokens so
    far] each.
    """
    best = Episode(tree.task, tree.root.best_reward, True, tree.best_actions, tree.cost)
    return best.record() | {"rises": [list(rise) for rise in tree.rises]}


def replay(environment: Environment, task: Task, actions: Iterable[str]) -> State:
    """The state after the actions: transitions are deterministic, so replay restores it."""
    return reduce(environment.step, actions, environment.reset(task))


def visited(environment: Environment, task: Task, actions: Iterable[str]) -> list[State]:
    """The first state of a task and the state after each of the actions."""
    return list(accumulate(actions, environment.step, initial=environment.reset(task)))


def decisions(
    environment: Environment, task: Task, actions: Sequence[str]
) -> list[tuple[State, str]]:
    """Each of the actions with the state in which it was chosen."""
    return list(zip(visited(environment, task, actions), actions, strict=False))


def demonstrate(
    environment: Environment, tasks: Sequence[Task], agent: Agent, seed: int, width: int
) -> list[dict[str, Any]]:
    """``episode`` records of an agent in the order of the tasks, ``width`` at a time."""
    jobs = (episode(environment, task, seed) for task in tasks)
    by_task = {record["task"]: record for record in lockstep(jobs, agent, width)}
    return [by_task[task.id] for task in tasks]


def under(state: State, instruction: str) -> State:
    """A state as it would read if its task had this instruction."""
    own = state.task.instruction

    def told(text: str) -> str:
        return text.replace(own, instruction) if own else text

    return replace(
        state,
        task=replace(state.task, instruction=instruction),
        observation=told(state.observation),
        history=tuple(replace(s, observation=told(s.observation)) for s in state.history),
    )
