"""The oracle of n: of n sampled actions the best by the environment. What reranking could reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.agents.arm import TRIED, Arm, Cast, Player, arm
from qvlib.agents.scripted import has_demonstrator
from qvlib.core.episodes import episode
from qvlib.core.reranker import Reranked
from qvlib.core.types import Agent, Environment, Request, State


@dataclass(frozen=True)
class Oracle:
    """A score that tries: the terminal reward that an expert reaches after the action.

    An action after which the expert needs fewer steps is better at equal reward, by less than any
    difference of rewards that counts. In [0, 1]; 0 where max_steps come first.
    """

    environment: Environment
    expert: Agent
    seed: int

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        return [
            [self._reached(self.environment.step(state, action)) for action in candidates]
            for state, candidates in zip(states, actions, strict=True)
        ]

    def _reached(self, state: State) -> float:
        limit = self.environment.max_steps
        while not state.done and state.depth < limit:
            key = (self.seed, state.task.id, f"{state.depth}/oracle")
            action = self.expert.propose([Request(state, 1, key)])[0][0].action
            state = self.environment.step(state, action)
        return state.reward - 1e-6 * state.depth if state.done else 0.0


def _oracle(n: int) -> Arm:
    def player(cast: Cast) -> Player:
        expert = cast.demonstrator(0.0)
        judge = Oracle(cast.environment, expert, cast.params.run.seed)
        return Player(Reranked(cast.sampler(), judge, n), episode)

    return arm(
        f"oracle_n{n}",
        TRIED,
        f"of {n} sampled actions the one after which the demonstrator without errors earns most: "
        "it tries in the environment, so it is no agent",
        player,
        active=has_demonstrator,
    )


ORACLE_N5, ORACLE_N10 = _oracle(5), _oracle(10)
