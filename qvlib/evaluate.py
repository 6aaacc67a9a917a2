"""Episodes of an agent, and what they are worth: one trial each, no undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .lockstep import Job
from .mcts import Tree
from .seeding import generator
from .types import Environment, Request, Task


def episode(environment: Environment, task: Task, seed: int, trace: bool = False) -> Job[dict[str, Any]]:
    """Let the agent act until the end or ``max_steps``; a generator for ``lockstep``.

    Every arm draws from the keys (seed, task, step), so that two arms in the same state see the same
    first samples: differences between arms are then differences of choice.
    Returns a record: task, reward in [0, 1] (0 if cut off), steps, and the cost. ``trace`` keeps each
    step's page and candidates.
    """
    state = environment.reset(task)
    record = {"task": task.id, "group": task.group, "proposals": 0, "tokens": 0, "prompt_tokens": 0, "refused": 0}
    steps = []
    while not state.done and state.depth < environment.max_steps:
        best = (yield Request(state, 1, (seed, task.id, str(state.depth))))[0]
        record["proposals"] += max(1, len(best.considered))
        for cost in ("tokens", "prompt_tokens", "refused"):
            record[cost] += getattr(best, cost)
        if trace:
            steps.append({"observation": state.observation, "action": best.action, "q": best.q, "candidates": [
                {"action": c.action, "q": c.q, "log_prob": c.log_prob} for c in best.considered]})
        state = environment.step(state, best.action)
    record |= {"reward": float(state.reward), "done": state.done, "env_steps": state.depth,
               "actions": [s.action for s in state.history]}
    return record | {"trace": steps} if trace else record


def tree_episode(tree: Tree) -> dict[str, Any]:
    """The record of a searched task: the best terminal reward found, with all the search's cost."""
    return {"task": tree.task.id, "group": tree.task.group, "proposals": tree.proposals, "tokens": tree.tokens,
            "prompt_tokens": tree.prompt_tokens, "refused": tree.refused, "reward": tree.root.best_reward,
            "done": True, "env_steps": tree.env_steps, "actions": []}


def bootstrap_mean(values: Sequence[float], groups: Sequence[str], resamples: int, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): the mean with a 95 % percentile interval that resamples whole groups.

    Tasks of one group (a product) are not independent, so groups are drawn with replacement and the
    mean is taken over all their tasks. Pass paired differences for a paired interval.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, float))
    counts = np.bincount(index)
    rng = generator(seed, "bootstrap")
    means = np.empty(resamples)
    for start in range(0, resamples, 1000):
        drawn = rng.integers(len(names), size=(min(1000, resamples - start), len(names)))
        means[start: start + len(drawn)] = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def compare(arms: Mapping[str, Sequence[Mapping[str, Any]]], against: str, resamples: int) -> dict[str, dict[str, Any]]:
    """Paired gain of mean reward of each arm over ``against``: mean, ci95, relative to its mean."""
    base = {r["task"]: r["reward"] for r in arms[against]}
    gains = {}
    for arm, records in arms.items():
        if arm == against:
            continue
        mean, low, high = bootstrap_mean([r["reward"] - base[r["task"]] for r in records],
                                         [r["group"] for r in records], resamples)
        level = float(np.mean([base[r["task"]] for r in records]))
        gains[arm] = {"mean": mean, "ci95": [low, high], "relative": mean / level if level else None}
    return gains
