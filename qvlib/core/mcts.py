"""Monte Carlo tree search over an agent's sampled actions (arXiv 2409.09345, section on collecting).

Transitions are deterministic, so Q(s_t, a_t) = V(s_{t+1}): a node's value is the Q value of the
action that leads to it. ``search`` is written for one tree; ``lockstep`` runs many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from qvlib.core.types import Cost, Environment, Job, Proposal, Request, State, Task, total


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """iterations, expand_n, exploration c; values of refused actions and of running out of steps.

    reroot_after: after so many iterations selection starts from the best visited child of where it
    started, and so on: deeper trees for the same iterations. 0 = always from the root.
    discount: what is left of a reward for each step that it is away; the published 1 is indifferent to
    putting off the end, which an agent that always takes the highest Q then does until its steps run out.
    uct: ``mean`` is V + c sqrt(ln N(parent) / N); ``published_code`` divides the running mean by
    the visits once more, so that exploitation fades as 1/N.
    """

    iterations: int = 30
    expand_n: int = 5
    exploration: float = math.sqrt(2)
    uct: str = "mean"
    stop_at_success: bool = True
    invalid_value: float = -1.0
    timeout_value: float = -0.5
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
    """A finished search: its root, the actions of the best episode it saw, and what it cost.

    best_actions: from the first state to the end with the highest reward that an iteration reached, by its rollout or in
    the tree; among equals the shortest, then the first. Empty where no episode ended.
    """

    task: Task
    root: Node
    iterations: int
    cost: Cost
    best_actions: tuple[str, ...] = ()


def uct(child: Node, parent: Node, config: SearchConfig) -> float:
    """V + c sqrt(ln N(parent) / N(child)); an unvisited child goes first."""
    if not child.visits:
        return math.inf
    value = child.value / child.visits if config.uct == "published_code" else child.value
    return value + config.exploration * math.sqrt(math.log(parent.visits) / child.visits)


def select(root: Node, config: SearchConfig) -> Node:
    """Follow the highest UCT down to a leaf; ties go to the child sampled first."""
    node = root
    while node.children:
        node = max(node.children, key=lambda child: uct(child, node, config))
    return node


def backup(leaf: Node, value: float, reward: float, discount: float = 1.0) -> None:
    """N += 1 and V += (value - V) / N for every node up to the root (eq. 5); a reward is discounted a step."""
    node: Node | None = leaf
    while node is not None:
        node.visits += 1
        node.value_sum += value
        node.best_reward = max(node.best_reward, reward)
        node = node.parent
        value = value * discount if value > 0 else value  # a penalty is no smaller for being far


def search(environment: Environment, task: Task, config: SearchConfig, seed: int) -> Job[Tree]:
    """Search one task; a generator for ``lockstep``.

    Each iteration selects a leaf, expands it if it was visited before (or is the root), rolls out
    from its first child with one sampled action a step, and backs the outcome up.
    """
    root = top = Node("", environment.reset(task))
    cost, done, best = Cost(), 0, root.state
    for iteration in range(config.iterations):
        done = iteration + 1
        if config.reroot_after and iteration and iteration % config.reroot_after == 0:
            top = _below(top, environment)
        leaf = select(top, config)
        if _open(leaf, environment) and (leaf.visits or leaf is root):
            cost += yield from _expand(leaf, environment, config, seed)
            leaf = leaf.children[0]
        value, end, spent = yield from _evaluate(leaf, environment, config, (seed, iteration))
        cost += spent
        backup(leaf, value, end.reward if end.done else 0.0, config.discount)
        if end.done and (not best.done or (end.reward, -end.depth) > (best.reward, -best.depth)):
            best = end
        if config.stop_at_success and leaf.state.done and leaf.state.reward >= 1:
            break
    return Tree(task, root, done, cost, tuple(step.action for step in best.history))


def _open(node: Node, environment: Environment) -> bool:
    """Can it have children? A refused action leads back to its parent's state, so it has none."""
    return node.state.valid and not node.state.done and node.state.depth < environment.max_steps


def _below(top: Node, environment: Environment) -> Node:
    """The child of the highest value that the search can go on from; ``top`` where there is none."""
    children = [child for child in top.children if child.visits and _open(child, environment)]
    return max(children, key=lambda child: (child.value, child.visits), default=top)


def _expand(leaf: Node, environment: Environment, config: SearchConfig, seed: int) -> Job[Cost]:
    """Give a leaf one child for each distinct sampled action; returns what that cost."""
    proposals = yield Request(leaf.state, config.expand_n, (seed, leaf.state.task.id, leaf.id))
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


def _evaluate(
    leaf: Node, environment: Environment, config: SearchConfig, key: tuple[int, int]
) -> Job[tuple[float, State, Cost]]:
    """(value, last state, cost) of rolling out from a node in the real environment."""
    state, (seed, iteration), cost = leaf.state, key, Cost()
    if not state.valid:
        return config.invalid_value, state, cost
    while not state.done:
        if state.depth >= environment.max_steps:
            return config.timeout_value, state, cost
        node = f"{leaf.id}/{iteration}/{state.depth}"
        proposals = yield Request(state, 1, (seed, state.task.id, node))
        cost += _spent(proposals) + Cost(env_steps=1)
        state = environment.step(state, proposals[0].action)
    value = state.reward * config.discount ** (state.depth - leaf.state.depth)
    return value, state, cost


def _spent(proposals: list[Proposal]) -> Cost:
    """The cost of an answer, each of its proposals counted."""
    return total(p.cost for p in proposals) + Cost(proposals=len(proposals))
