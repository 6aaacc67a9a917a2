"""A small environment with known values, agents without a language model, a small random model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.types import Cost, Proposal, Request, State, Step, Task

REFUSED = "nonsense"


@dataclass(frozen=True)
class Maze:
    """Choose ``depth`` times among ``choices``; the reward depends on all choices.

    ``nonsense`` is refused. ``loop`` is an action that is accepted, costs a step and leads nowhere;
    with it an episode can be cut off.
    """

    depth: int = 3
    choices: tuple[str, ...] = ("a", "b", "c")
    seed: int = 0
    levels: int = 5
    max_steps: int = 4
    name: str = "maze"
    timeout_value: float = -0.5

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(f"{split}-{i}", f"{split} {i}", group=f"{split}-{i // 2}") for i in range(8)]

    def reset(self, task: Task) -> State:
        return State(task, "at start", admissible=self.choices, world=())

    def step(self, state: State, action: str) -> State:
        assert not state.done
        if action == "loop":
            return replace(
                state,
                observation="loop",
                history=(*state.history, Step(action, "loop")),
                valid=True,
            )
        if action not in self.choices:
            return replace(
                state,
                observation="refused",
                history=(*state.history, Step(action, "refused")),
                valid=False,
            )
        world = (*state.world, action)
        done = len(world) == self.depth
        seen = "at " + "".join(world)
        return State(
            state.task,
            seen,
            (*state.history, Step(action, seen)),
            () if done else self.choices,
            self.reward(state.task, world) if done else 0.0,
            done,
            True,
            world,
        )

    def accepts(self, state: State, action: str) -> bool | None:
        return action == "loop" or action in self.choices

    def reward(self, task: Task, world: tuple[str, ...]) -> float:
        """Terminal reward in [0, 1)."""
        return float(generator(self.seed, task.id, *world).integers(self.levels)) / self.levels

    def best(self, task: Task, world: tuple[str, ...] = ()) -> float:
        """The value of acting best from here, by dynamic programming."""
        if len(world) == self.depth:
            return self.reward(task, world)
        return max(self.best(task, (*world, a)) for a in self.choices)

    def uniform(self, task: Task, world: tuple[str, ...] = ()) -> float:
        """The value of acting at random from here."""
        if len(world) == self.depth:
            return self.reward(task, world)
        return float(np.mean([self.uniform(task, (*world, a)) for a in self.choices]))


@dataclass(frozen=True)
class Paths:
    """Episodes that end where they are told to: path of letters -> terminal reward.

    Any of ``choices`` goes on from any other path.
    """

    ends: tuple[tuple[str, float], ...]
    choices: tuple[str, ...] = ("a", "b")
    max_steps: int = 4
    name: str = "paths"
    timeout_value: float = -0.5

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(f"{split}-0", "go")]

    def reset(self, task: Task) -> State:
        return State(task, "at start", admissible=self.choices, world="")

    def step(self, state: State, action: str) -> State:
        assert not state.done
        world = state.world + action
        reward = dict(self.ends).get(world)
        return State(
            state.task,
            f"at {world}",
            (*state.history, Step(action, f"at {world}")),
            self.choices,
            reward or 0.0,
            reward is not None,
            True,
            world,
        )

    def accepts(self, state: State, action: str) -> bool | None:
        return action in self.choices


@dataclass
class Told:
    """A Q model that is told the value of each path of letters; of others ``other``."""

    values: dict[str, float]
    other: float = 0.0

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        return [
            [self.values.get("".join((*state.world, a)), self.other) for a in row]
            for state, row in zip(states, actions, strict=True)
        ]


@dataclass
class Scripted:
    """Draws each action at random from ``actions`` by the request's key; counts its calls."""

    actions: Sequence[str] = ("a", "b", "c")
    calls: list[list[Request]] = field(default_factory=list)

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        self.calls.append(list(requests))
        n = len(self.actions)
        return [
            [
                Proposal(
                    self.actions[generator(*r.key, k).integers(n)],
                    -float(np.log(n)),
                    Cost(tokens=2, prompt_tokens=7 if k == 0 else 0),
                )
                for k in range(r.n)
            ]
            for r in requests
        ]


@dataclass
class Fixed:
    """Proposes the given actions with the given log-probabilities, in order, over and over."""

    actions: Sequence[str]
    log_probs: Sequence[float] = (-1.0,)

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [
            [
                Proposal(a, p, Cost(tokens=1, prompt_tokens=5 if k == 0 else 0))
                for k, (a, p) in enumerate(
                    itertools.islice(
                        zip(itertools.cycle(self.actions), itertools.cycle(self.log_probs)), r.n
                    )
                )
            ]
            for r in requests
        ]


@dataclass
class Table:
    """A Q model that looks actions up."""

    q: dict[str, float]
    asked: list[list[str]] = field(default_factory=list)

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        self.asked += [list(row) for row in actions]
        return [[self.q[a] for a in row] for row in actions]


def states(n: int = 12, seed: int = 0) -> list[State]:
    """Shop-like states with histories, identifiers and several instructions."""
    words = (
        "soft red cotton shirt wool sofa oak table green loose tea lamp small large "
        "price lower than 40.00 dollars"
    ).split()
    rng = generator(seed, "states")
    rows = []
    for i in range(n):

        def some(low: int, high: int) -> str:
            return " ".join(
                words[j] for j in rng.integers(len(words), size=int(rng.integers(low, high)))
            )

        names = [f"b0{rng.integers(10**7, 10**8)}" for _ in range(3)]
        task = Task(f"t{i}", f"Find me {some(3, 9)}")
        seen = f"{task.instruction} [SEP] Back to Search [SEP] " + " [SEP] ".join(
            f"{x} [SEP] {some(2, 6)}" for x in names
        )
        history = tuple(
            Step(a, "")
            for a in (f"search[{some(1, 4)}]", f"click[{names[0]}]")[: int(rng.integers(3))]
        )
        rows.append(
            State(
                task,
                seen,
                history,
                ("search[<query>]", "click[back to search]", *(f"click[{x}]" for x in names)),
            )
        )
    return rows


def small_lm(dtype: str = "float64", seed: int = 0, width: int = 32, **options):
    """A random model with a tokenizer trained on ``states``."""
    import torch

    from qvlib.models.local import LocalModel
    from qvlib.models.precision import in_own_precision
    from qvlib.models.small import Demonstration, make_model, train_tokenizer

    torch.set_num_threads(1)
    demonstrations = [
        Demonstration(s, s.admissible[i % 4 + 1]) for i, s in enumerate(states(40, seed=1))
    ]
    tokenizer = train_tokenizer(demonstrations, 420)
    model = in_own_precision(make_model(tokenizer, width, 2, 2, seed).to(getattr(torch, dtype)))
    with torch.no_grad():
        # A random model is nearly uniform; this one has opinions.
        model.model.embed_tokens.weight *= 12
    return LocalModel(model, tokenizer, **options)
