"""A scripted player that knows how to win and errs: what small agents are cloned from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.types import Proposal, Request, State
from qvlib.environments.textworld.environment import TextWorld, looks
from qvlib.environments.textworld.games import walkthrough


@dataclass(frozen=True)
class Player:
    """Follows the game's own policy; with probability ``error`` it gives any accepted command.

    Where the game cannot be won any more it gives any command. Its draws derive from the request's
    key. What the game's walkthrough looks at (the cookbook), it looks at first, since the policy
    alone knows it all.
    """

    environment: TextWorld
    error: float = 0.4

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        return [
            [
                Proposal(self._act(request.state, generator(*request.key, k)))
                for k in range(request.n)
            ]
            for request in requests
        ]

    def _act(self, state: State, rng: np.random.Generator) -> str:
        open_to = [c for c in state.admissible or () if self.environment.accepts(state, c)] or list(
            state.admissible or ()
        )
        wanted = self._wanted(state)
        if wanted is None or rng.random() < self.error:
            return str(rng.choice(open_to))
        return wanted

    def _wanted(self, state: State) -> str | None:
        path, commands = state.task.goal, state.world.commands
        game = self._book(path).game
        for command in walkthrough(game):
            if (
                command.startswith("examine ")
                and command in state.admissible
                and command not in commands
            ):
                return command
        policy = [c for c in self._book(path).policy(commands) if not looks(c)]
        return policy[0] if policy and policy[0] in state.admissible else None

    def _book(self, path: str) -> _Book:
        return _book(str(self.environment.folder / path))


class _Book:
    """The logic of one game without its text: TextWorld's own policy after some commands."""

    def __init__(self, path: str) -> None:
        import textworld

        self.env = textworld.start(
            path.removesuffix(".z8") + ".json", textworld.EnvInfos(policy_commands=True)
        )
        self.at: tuple[str, ...] | None = None
        self.now: Any = None

    @property
    def game(self) -> Any:
        return self.env._game

    def policy(self, commands: tuple[str, ...]) -> list[str]:
        """Commands that win from there, [] if nothing does."""
        if self.at is None or commands[: len(self.at)] != self.at:
            self.now, self.at = self.env.reset(), ()
        for command in commands[len(self.at) :]:
            self.now = self.env.step(command)[0]
        self.at = commands
        return self.now.policy_commands or []


@functools.lru_cache(64)
def _book(path: str) -> _Book:
    return _Book(path)
