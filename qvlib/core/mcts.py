"""Monte Carlo tree search over an agent's sampled actions (arXiv 2409.09345, collecting).

Transitions are deterministic, so Q(s_t, a_t) = V(s_{t+1}): a node's value is the Q value of the
action that leads to it. ``search`` is written for one tree; ``lockstep`` runs many. How it selects
a leaf and what it takes a leaf to be worth are functions that are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from qvlib.core.types import (
    FREE,
    Cost,
    Environment,
    Job,
    Key,
    Proposal,
    Request,
    State,
    Task,
    total,
)


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """What ``search`` does besides selecting and evaluating.

    iterations: leaves that are evaluated, at most. expand_n: actions that are sampled for a node.
    exploration: the c of UCT, where no other selection is handed in.
    stop_at_success: stop once a node of the tree ends with reward 1.
    invalid_value: what is backed up for an action that the environment refused.
    expand_at: ``second_visit`` of a leaf (the root's first), or the first, after which the search
        also stops at a success that was not evaluated.
    unvisited_value: of a child before its first visit, ``zero`` or the ``reward`` it ended with, or
        ``invalid_value``. Of new children the one of the highest is evaluated.
    refused_actions: they ``end`` a branch or, as in an episode, ``go_on``.
    wrong_end_value: added in the node of an end with reward 0; above it counts 0.
    final_backup: a search without success ends by backing up each end whose value is 0.
    reroot_after: after so many iterations selection starts from the best visited child of where it
        started, and so on: deeper trees for the same iterations. 0 = always from the root.
    discount: discount factor per step (the published 1 makes putting off the end free: an agent
        that always takes the highest Q then does so until its steps run out).
    """

    iterations: int = 30
    expand_n: int = 5
    exploration: float = math.sqrt(2)
    stop_at_success: bool = True
    invalid_value: float = -1.0
    expand_at: Literal["second_visit", "first_visit"] = "second_visit"
    unvisited_value: Literal["zero", "reward"] = "zero"
    refused_actions: Literal["end", "go_on"] = "end"
    wrong_end_value: float = 0.0
    final_backup: bool = False
    reroot_after: int = 0
    discount: float = 1.0


@dataclass(slots=True)
class Node:
    """A state in the tree and the action that led to it; only a search changes one.

    id: the path of child numbers from the root, "" for the root, then "0", "0.3", ...
    samples: how many of the agent's draws were this action.
    value_sum: sum of the backed-up values, each in [-1, 1].
    best_reward: best terminal reward in [0, 1] seen at or below it: of nodes, visited or not, and
        rollouts.
    born: how many children it has had.
    """

    id: str
    state: State
    parent: Node | None = None
    action: str = ""
    log_prob: float | None = None
    samples: int = 1
    visits: int = 0
    value_sum: float = 0.0
    best_reward: float = 0.0
    unvisited_value: float = 0.0
    born: int = 0
    children: list[Node] = field(default_factory=list)

    @property
    def value(self) -> float:
        """Running mean of the backed-up values; ``unvisited_value`` before the first visit."""
        return self.value_sum / self.visits if self.visits else self.unvisited_value

    @property
    def depth(self) -> int:
        return self.id.count(".") + 1 if self.id else 0

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Tree:
    """A finished search: its root, what it cost, and the actions of the best episode it saw.

    best_actions: from the first state to the end with the highest reward that was seen, in the tree
        or by a rollout; among equals the shortest, then the first. Empty where no
        episode ended.
    rises: (steps in the environment so far, best terminal reward seen, tokens so far), each time
        that reward rose, from 0: its anytime curve. An expansion's steps count together.
    """

    task: Task
    root: Node
    iterations: int
    cost: Cost
    best_actions: tuple[str, ...] = ()
    rises: tuple[Rise, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a leaf was found to be worth.

    value: in [-1, 1]. end: the last state that was seen; if it is ``done``, its reward counts for
    the tree's best. cost: what finding out cost.
    """

    value: float
    end: State
    cost: Cost = FREE


Rise = tuple[int, float, int]
"""(steps in the environment so far, best terminal reward seen, tokens read and written so far)."""

Select = Callable[[Node], Node | None]
"""The leaf to evaluate next, from the node where selection starts; None ends the search."""

Evaluate = Callable[[Node, Key], Job[Evaluation]]
"""What a leaf is worth; every draw it asks for has a key that begins with the given one.

It is asked only where there is something to find out: not of a state that is done, that was
refused, or whose steps have run out.
"""

Judge = Callable[[State, Key], Job[State]]
"""The end of an episode with the reward that someone else gives it; its requests ask of an end."""


def search(
    environment: Environment,
    task: Task,
    config: SearchConfig,
    seed: int,
    *,
    select: Select | None = None,
    evaluate: Evaluate | None = None,
    judge: Judge | None = None,
    stream: str = "search",
) -> Job[Tree]:
    """Search one task; a generator for ``lockstep``.

    Each iteration selects a leaf, expands it if it was visited before (or is the root), evaluates
    its first child, and backs the outcome up; ``config`` has other rules. By default it selects by
    UCT (``uct_select``) and evaluates by one ``rollout``. A ``judge`` gives the rewards of ends in
    the place of the environment, in the tree and in that rollout.

    stream: names its random draws, others than those of an ``episode`` of the same task and seed
    unless it is empty; searches of a task under one name share theirs.
    """
    select = select or uct_select(config.exploration)
    evaluate = evaluate or rollout(environment, config.discount, judge)
    at_once, prefix = config.expand_at == "first_visit", f"{stream}/" if stream else ""
    root = top = Node("", environment.reset(task))
    cost, done, best, solved = Cost(), 0, root.state, False
    rises: list[Rise] = []
    while done < config.iterations and not solved:
        if config.reroot_after and done and done % config.reroot_after == 0:
            top = _below(top, environment, config)
        leaf = select(top)
        if leaf is None:
            break
        stepped_into = [leaf]
        if _open(leaf, environment, config) and (leaf.visits or leaf is root or at_once):
            cost += yield from _expand(leaf, environment, config, (seed, task.id, prefix), judge)
            _risen(rises, root, cost)
            stepped_into = leaf.children
            leaf = max(stepped_into, key=lambda child: child.value)
        outcome = _settled(leaf, environment, config)
        if outcome is None:
            outcome = yield from evaluate(leaf, (seed, task.id, f"{prefix}{leaf.id}/{done}"))
        cost += outcome.cost
        end = outcome.end
        reward = end.reward if end.done else 0.0
        backup(leaf, outcome.value, reward, config.discount, config.wrong_end_value)
        _risen(rises, root, cost)
        for state in (*(node.state for node in stepped_into), end):
            best = _better(state, best)
        ends = stepped_into if at_once else [leaf]
        solved = config.stop_at_success and any(
            node.state.done and node.state.reward >= 1 for node in ends
        )
        done += 1
    if config.final_backup and not solved:
        for node in [n for n in root.walk() if n.state.done and n.value == 0]:
            reward = node.state.reward
            backup(node, reward, reward, config.discount, config.wrong_end_value)
    actions = tuple(step.action for step in best.history)
    return Tree(task, root, done, cost, actions, tuple(rises))


def uct(child: Node, parent: Node, exploration: float) -> float:
    """V + c sqrt(ln N(parent) / N(child)); an unvisited child goes first."""
    if not child.visits:
        return math.inf
    return child.value + exploration * math.sqrt(math.log(parent.visits) / child.visits)


def uct_select(exploration: float, score: Callable[[Node, Node, float], float] = uct) -> Select:
    """Follow the highest score down to a leaf; ties go to the child sampled first."""

    def select(top: Node) -> Node:
        node = top
        while node.children:
            node = max(node.children, key=lambda child: score(child, node, exploration))
        return node

    return select


def rollout(
    environment: Environment, discount: float = 1.0, judge: Judge | None = None
) -> Evaluate:
    """Evaluate a leaf by one episode from there in the real environment, an action a step.

    The value is the terminal reward, or the ``judge``'s, discounted by the steps to the end;
    ``timeout_value`` of the environment if the episode is cut off.
    """

    def evaluate(leaf: Node, key: Key) -> Job[Evaluation]:
        state, cost = leaf.state, Cost()
        while not state.done:
            if state.depth >= environment.max_steps:
                return Evaluation(environment.timeout_value, state, cost)
            asked = (*key[:2], f"{key[2]}/{state.depth}")
            proposals = yield Request(state, 1, asked)
            cost += _spent(proposals) + Cost(env_steps=1)
            state = yield from _step(environment, state, proposals[0].action, judge, asked)
        value = state.reward * discount ** (state.depth - leaf.state.depth)
        return Evaluation(value, state, cost)

    return evaluate


def backup(
    leaf: Node, value: float, reward: float, discount: float = 1.0, wrong_end_value: float = 0.0
) -> None:
    """N += 1 and V += (value - V) / N for every node up to the root (eq. 5).

    A reward is discounted a step for each node up; a penalty is no smaller for being far.
    ``wrong_end_value`` counts in the leaf alone, where the episode ends there with reward 0.
    """
    if leaf.state.done and not leaf.state.reward:
        leaf.value_sum += wrong_end_value
    node: Node | None = leaf
    while node is not None:
        node.visits += 1
        node.value_sum += value
        node = node.parent
        value = value * discount if value > 0 else value
    _note(leaf, reward)


def _note(node: Node | None, reward: float) -> None:
    """A terminal reward was seen at or below a node: so it was below all above it."""
    while node is not None:
        node.best_reward = max(node.best_reward, reward)
        node = node.parent


def _risen(rises: list[Rise], root: Node, cost: Cost) -> None:
    """Keep the best reward seen, and what it took, if it is higher than before."""
    if root.best_reward > (rises[-1][1] if rises else 0.0):
        rises.append((cost.env_steps, root.best_reward, cost.tokens + cost.prompt_tokens))


def _open(node: Node, environment: Environment, config: SearchConfig) -> bool:
    """Can it have children? A refused action leads back to its parent's state, so it has none."""
    goes_on = node.state.valid or config.refused_actions == "go_on"
    return goes_on and not node.state.done and node.state.depth < environment.max_steps


def _settled(leaf: Node, environment: Environment, config: SearchConfig) -> Evaluation | None:
    """What a leaf is worth where there is nothing to find out: refused, done or out of steps."""
    if _open(leaf, environment, config):
        return None
    if not leaf.state.valid and config.refused_actions == "end":
        return Evaluation(config.invalid_value, leaf.state)
    value = leaf.state.reward if leaf.state.done else environment.timeout_value
    return Evaluation(value, leaf.state)


def _below(top: Node, environment: Environment, config: SearchConfig) -> Node:
    """The child of the highest value that can be gone on from; ``top`` where there is none."""
    children = [c for c in top.children if c.visits and _open(c, environment, config)]
    return max(children, key=lambda child: (child.value, child.visits), default=top)


def _step(
    environment: Environment, state: State, action: str, judge: Judge | None, key: Key
) -> Job[State]:
    """The state after an action; its end has the judge's reward, where there is a judge."""
    after = environment.step(state, action)
    if judge is not None and after.done:
        after = yield from judge(after, key)
    return after


def _expand(
    leaf: Node,
    environment: Environment,
    config: SearchConfig,
    key: Key,
    judge: Judge | None = None,
) -> Job[Cost]:
    """Give a leaf one child for each distinct sampled action; returns what that cost.

    One that has lost its children draws anew, and numbers them on.
    """
    node = f"{key[2]}{leaf.id}" + (f"+{leaf.born}" if leaf.born else "")
    proposals = yield Request(leaf.state, config.expand_n, (*key[:2], node))
    by_action: dict[str, Node] = {}
    for proposal in proposals:
        action = proposal.action
        if action in by_action:
            by_action[action].samples += 1
            continue
        name = f"{leaf.id}.{leaf.born}" if leaf.id else str(leaf.born)
        asked = (*key[:2], f"{key[2]}{name}")
        state = yield from _step(environment, leaf.state, action, judge, asked)
        child = Node(name, state, leaf, action, proposal.log_prob)
        if config.unvisited_value == "reward":
            child.unvisited_value = (
                child.state.reward if child.state.valid else config.invalid_value
            )
        if child.state.done:
            _note(child, child.state.reward)
        by_action[action] = child
        leaf.born += 1
    leaf.children = list(by_action.values())
    return _spent(proposals) + Cost(env_steps=len(by_action))


def _better(end: State, best: State) -> State:
    """Of two states the end with the higher reward, then the shorter, then ``best``."""
    if not end.done:
        return best
    better = (end.reward, -end.depth) > (best.reward, -best.depth)
    return end if better or not best.done else best


def _spent(proposals: list[Proposal]) -> Cost:
    """The cost of an answer, each of its proposals counted."""
    return total(p.cost for p in proposals) + Cost(proposals=len(proposals))
