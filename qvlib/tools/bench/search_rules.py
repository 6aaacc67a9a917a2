"""What a search finds by its rules: those of the defaults, of the paper's code, and between."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qvlib.base.seeding import generator
from qvlib.core.types import Agent, Environment, Proposal, Request, State, Step, Task
from qvlib.tools.bench.common import Rows

PROBLEMS, PRODUCTS, TASKS, RESAMPLES = 300, 800, 100, 10_000
FIRST = {"expand_at": "first_visit"}
ONCE = {"ended_leaves": "once"}
KNOWN = {"unvisited_value": "reward"}
PUBLISHED = {
    **FIRST,
    **KNOWN,
    "ended_leaves": "published_code",
    "refused_actions": "go_on",
    "final_backup": True,
    "discount": 1.0,
}
RULES: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "undiscounted": {"discount": 1.0},
    "first visit": FIRST,
    "ends once": ONCE,
    "rewards known": KNOWN,
    "new pages first": {"uct": "novelty"},
    "first visit, ends once": FIRST | ONCE,
    "first visit, ends once, rewards known": FIRST | ONCE | KNOWN,
    "published, with UCT of the paper": PUBLISHED,
    "published": PUBLISHED | {"uct": "published_code"},
}


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """The best reward that a search of 30 iterations sees, by its rules.

    On random deterministic problems whose best reward is known, with a random agent, and on dev
    tasks of the embedded WebShop with its scripted shopper. One seed a repeat.

    Columns: the mean best reward; its difference to the rules as they are, paired by task, with a
    95 % interval over tasks; the share of searches that see the problem's best (WebShop: 1); pairs
    a tree (all_nodes); of the pairs of problems the share whose chosen action leads to the higher
    best reward, a tie counting one half. ``ratio``: of the published rules' best reward to ours.
    """
    rows, ratios = [], {}
    for name, (environment, tasks, agent) in problems().items():
        found = {
            rule: [
                searched(environment, tasks, agent, changes, seed)
                for seed in range(max(1, repeats))
            ]
            for rule, changes in RULES.items()
        }
        table = [_row(name, rule, found[rule], found["as it is"]) for rule in RULES]
        ratios[name] = table[-1]["best reward"] / table[0]["best reward"]
        rows += table
    first = next(iter(ratios))
    return rows, {"ratio": ratios[first], "ratios": ratios, "problems": PROBLEMS, "tasks": TASKS}


@dataclass(frozen=True)
class Searched:
    """What came out of a task's search: the best reward seen, whether it is the best there is."""

    group: str
    best: float
    solved: bool
    pairs: int
    right: float


def problems() -> dict[str, tuple[Environment, Sequence[Task], Agent]]:
    """Name -> environment, tasks, who is searched with."""
    from qvlib import environments
    from qvlib.core.filtering import Filtered
    from qvlib.pipeline.by_hand import make_environment

    shop = make_environment("webshop", catalogue_products=PRODUCTS)
    script = environments.demonstrator(environments.world_of("webshop"), shop)
    random = RandomProblems()
    return {
        "random problems": (random, random.tasks("dev")[:PROBLEMS], Uniform()),
        "webshop": (shop, shop.tasks("dev")[:TASKS], Filtered(script, shop)),
    }


def searched(
    environment: Environment,
    tasks: Sequence[Task],
    agent: Agent,
    changes: Mapping[str, Any],
    seed: int,
) -> list[Searched]:
    """Search every task with some settings changed."""
    from qvlib.agents.search import search_config, selection
    from qvlib.core.lockstep import lockstep
    from qvlib.core.mcts import search
    from qvlib.core.preferences import build_pairs
    from qvlib.core.trees import tree_record
    from qvlib.pipeline.params import make

    settings = make(changes).search
    config, select = search_config(settings), selection(settings)
    jobs = (search(environment, task, config, seed, select=select) for task in tasks)
    found = {}
    for tree in lockstep(jobs, agent, len(tasks)):
        best, pairs = tree.root.best_reward, build_pairs([tree_record(tree)], min_margin=0.05)
        most, right = 1.0, math.nan
        if isinstance(environment, RandomProblems):
            most = environment.best(tree.task, ())
            better = [environment.better(tree.task, p.path, p.chosen, p.rejected) for p in pairs]
            right = sum(better) / len(better) if better else math.nan
        group = tree.task.group
        found[tree.task.id] = Searched(group, best, best >= most, len(pairs), right)
    return [found[task.id] for task in tasks]


def _row(
    problem: str, rule: str, runs: Sequence[Sequence[Searched]], base: Sequence[Sequence[Searched]]
) -> dict[str, Any]:
    from qvlib.core.statistics import bootstrap_mean

    found = [each for run in runs for each in run]
    usual = [each for run in base for each in run]
    differences = [a.best - b.best for a, b in zip(found, usual, strict=True)]
    mean, low, high = bootstrap_mean(differences, [each.group for each in found], RESAMPLES)
    told = [each.right for each in found if not math.isnan(each.right)]
    return {
        "problems": problem,
        "rules": rule,
        "best reward": _mean([each.best for each in found]),
        "difference": f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]",
        "best there is": _mean([each.solved for each in found]),
        "pairs a tree": _mean([each.pairs for each in found]),
        "pairs right": _mean(told) if told else math.nan,
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3)


@dataclass(frozen=True)
class RandomProblems:
    """Deterministic problems: four actions a state, an end at random, at the latest after five.

    Rewards are in tenths, low ones the most frequent.
    """

    name: str = "random problems"
    max_steps: int = 5
    timeout_value: float = -0.5
    actions: tuple[str, ...] = ("a", "b", "c", "d")
    ends: float = 0.15

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(f"{split}-{i}", "find the best", f"{split}-{i}") for i in range(PROBLEMS)]

    def reset(self, task: Task) -> State:
        return State(task, "start", admissible=self.actions, world=())

    def step(self, state: State, action: str) -> State:
        world = (*state.world, action)
        reward, done = self._end(state.task.id, world)
        seen = "".join(world)
        history = (*state.history, Step(action, seen))
        return State(state.task, seen, history, self.actions, reward, done, True, world)

    def accepts(self, state: State, action: str) -> bool | None:
        return action in self.actions

    def best(self, task: Task, world: tuple[str, ...]) -> float:
        """The best reward from there on."""
        return _best(self, task.id, world)

    def better(self, task: Task, path: tuple[str, ...], chosen: str, rejected: str) -> float:
        """Whether an action leads to the higher best reward; one half where they are equal."""
        first, second = (self.best(task, (*path, action)) for action in (chosen, rejected))
        return 0.5 if first == second else float(first > second)

    def _end(self, task: str, world: tuple[str, ...]) -> tuple[float, bool]:
        """(reward, done)."""
        drawn = generator(0, "problem", task, *world)
        done = len(world) == self.max_steps or bool(drawn.random() < self.ends)
        return (round(float(drawn.random()) ** 3, 1) if done else 0.0), done


@functools.cache
def _best(problems: RandomProblems, task: str, world: tuple[str, ...]) -> float:
    if world:
        reward, done = problems._end(task, world)
        if done:
            return reward
    return max(_best(problems, task, (*world, action)) for action in problems.actions)


@dataclass(frozen=True)
class Uniform:
    """Draws an action at random."""

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [
            [
                Proposal(actions[generator(*request.key, k).integers(len(actions))])
                for k in range(request.n)
            ]
            for request in requests
            for actions in [request.state.admissible or ()]
        ]
