"""Monte Carlo tree search over an agent's sampled actions (arXiv 2409.09345, collecting).

Transitions are deterministic, so Q(s_t, a_t) = V(s_{t+1}): a node's value is the Q value of the
action that leads to it. ``search`` is written for one tree; ``lockstep`` runs many. How it selects
a leaf and what it takes a leaf to be worth are functions that are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

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
    reroot_after: int = 0
    discount: float = 1.0


@dataclass(slots=True)
class Node:
    """A state in the tree and the action that led to it; only ``search`` changes one.

    id: the path of child numbers from the root, "" for the root, then "0", "0.3", ...
    samples: how many of the agent's draws were this action.
    value_sum: sum of the backed-up values, each in [-1, 1].
    best_reward: best terminal reward in [0, 1] seen at or below it, rollouts included.
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
    children: list[Node] = field(default_factory=list)

    @property
    def value(self) -> float:
        """Running mean of the backed-up values; 0 before the first visit."""
        return self.value_sum / self.visits if self.visits else 0.0

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

    best_actions: from the first state to the end with the highest reward that an iteration reached,
        by its rollout or in the tree; among equals the shortest, then the first. Empty where no
        episode ended.
    """

    task: Task
    root: Node
    iterations: int
    cost: Cost
    best_actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a leaf was found to be worth.

    value: in [-1, 1]. end: the last state that was seen; if it is ``done``, its reward counts for
    the tree's best. cost: what finding out cost.
    """

    value: float
    end: State
    cost: Cost = FREE


Select = Callable[[Node], Node]
"""The leaf to evaluate next, from the node where selection starts."""

Evaluate = Callable[[Node, Key], Job[Evaluation]]
"""What a leaf is worth; every draw it asks for has a key that begins with the given one.

It is asked only where there is something to find out: not of a state that is done, that was
refused, or whose steps have run out.
"""


def search(
    environment: Environment,
    task: Task,
    config: SearchConfig,
    seed: int,
    *,
    select: Select | None = None,
    evaluate: Evaluate | None = None,
) -> Job[Tree]:
    """Search one task; a generator for ``lockstep``.

    Each iteration selects a leaf, expands it if it was visited before (or is the root), evaluates
    its first child, and backs the outcome up. By default it selects by UCT (``uct_select``) and
    evaluates by one ``rollout``.
    """
    select = select or uct_select(config.exploration)
    evaluate = evaluate or rollout(environment, config.discount)
    root = top = Node("", environment.reset(task))
    cost, done, best = Cost(), 0, root.state
    for iteration in range(config.iterations):
        done = iteration + 1
        if config.reroot_after and iteration and iteration % config.reroot_after == 0:
            top = _below(top, environment)
        leaf = select(top)
        if _open(leaf, environment) and (leaf.visits or leaf is root):
            cost += yield from _expand(leaf, environment, config.expand_n, seed)
            leaf = leaf.children[0]
        outcome = _settled(leaf, environment, config.invalid_value)
        if outcome is None:
            outcome = yield from evaluate(leaf, (seed, task.id, f"{leaf.id}/{iteration}"))
        cost += outcome.cost
        end = outcome.end
        backup(leaf, outcome.value, end.reward if end.done else 0.0, config.discount)
        best = _better(end, best)
        if config.stop_at_success and leaf.state.done and leaf.state.reward >= 1:
            break
    return Tree(task, root, done, cost, tuple(step.action for step in best.history))


def uct(child: Node, parent: Node, exploration: float) -> float:
    """V + c sqrt(ln N(parent) / N(child)); an unvisited child goes first."""
    if not child.visits:
        return math.inf
    return child.value + exploration * math.sqrt(math.log(parent.visits) / child.visits)


def published_uct(child: Node, parent: Node, exploration: float) -> float:
    """UCT as the published code has it: the running mean is divided by the visits once more.

    Exploitation fades as 1 / N(child).
    """
    if not child.visits:
        return math.inf
    bonus = exploration * math.sqrt(math.log(parent.visits) / child.visits)
    return child.value / child.visits + bonus


def uct_select(exploration: float, score: Callable[[Node, Node, float], float] = uct) -> Select:
    """Follow the highest score down to a leaf; ties go to the child sampled first."""

    def select(top: Node) -> Node:
        node = top
        while node.children:
            node = max(node.children, key=lambda child: score(child, node, exploration))
        return node

    return select


def published_uct_select(exploration: float) -> Select:
    """``uct_select`` by ``published_uct``."""
    return uct_select(exploration, published_uct)


def rollout(environment: Environment, discount: float = 1.0) -> Evaluate:
    """Evaluate a leaf by one episode from there in the real environment, an action a step.

    The value is the terminal reward, discounted by the steps to the end; ``timeout_value`` of the
    environment if the episode is cut off.
    """

    def evaluate(leaf: Node, key: Key) -> Job[Evaluation]:
        state, cost = leaf.state, Cost()
        while not state.done:
            if state.depth >= environment.max_steps:
                return Evaluation(environment.timeout_value, state, cost)
            proposals = yield Request(state, 1, (*key[:2], f"{key[2]}/{state.depth}"))
            cost += _spent(proposals) + Cost(env_steps=1)
            state = environment.step(state, proposals[0].action)
        value = state.reward * discount ** (state.depth - leaf.state.depth)
        return Evaluation(value, state, cost)

    return evaluate


def backup(leaf: Node, value: float, reward: float, discount: float = 1.0) -> None:
    """N += 1 and V += (value - V) / N for every node up to the root (eq. 5).

    A reward is discounted a step for each node up; a penalty is no smaller for being far.
    """
    node: Node | None = leaf
    while node is not None:
        node.visits += 1
        node.value_sum += value
        node.best_reward = max(node.best_reward, reward)
        node = node.parent
        value = value * discount if value > 0 else value


def _open(node: Node, environment: Environment) -> bool:
    """Can it have children? A refused action leads back to its parent's state, so it has none."""
    return node.state.valid and not node.state.done and node.state.depth < environment.max_steps


def _settled(leaf: Node, environment: Environment, invalid_value: float) -> Evaluation | None:
    """What a leaf is worth where there is nothing to find out: refused, done or out of steps."""
    if _open(leaf, environment):
        return None
    if not leaf.state.valid:
        return Evaluation(invalid_value, leaf.state)
    value = leaf.state.reward if leaf.state.done else environment.timeout_value
    return Evaluation(value, leaf.state)


def _below(top: Node, environment: Environment) -> Node:
    """The child of the highest value that can be gone on from; ``top`` where there is none."""
    children = [child for child in top.children if child.visits and _open(child, environment)]
    return max(children, key=lambda child: (child.value, child.visits), default=top)


def _expand(leaf: Node, environment: Environment, n: int, seed: int) -> Job[Cost]:
    """Give a leaf one child for each distinct sampled action; returns what that cost."""
    proposals = yield Request(leaf.state, n, (seed, leaf.state.task.id, leaf.id))
    by_action: dict[str, Node] = {}
    for proposal in proposals:
        if proposal.action in by_action:
            by_action[proposal.action].samples += 1
            continue
        number = f"{leaf.id}.{len(by_action)}" if leaf.id else str(len(by_action))
        state = environment.step(leaf.state, proposal.action)
        by_action[proposal.action] = Node(number, state, leaf, proposal.action, proposal.log_prob)
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
