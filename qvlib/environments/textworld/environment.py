"""TextWorld games as pure functions of immutable states: a game and the commands given in it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from qvlib.base.errors import QvlibError
from qvlib.core.types import State, Step, Task
from qvlib.environments.textworld import games
from qvlib.environments.textworld.machine import Machines, Moment

REFUSED = "That cannot be done here."
LOOKING = ("look", "inventory")


@dataclass(frozen=True, slots=True)
class Played:
    """The commands given so far, as the game spells them, and the points they have earned."""

    commands: tuple[str, ...] = ()
    score: int = 0


@dataclass(frozen=True)
class TextWorld:
    """Games of a folder, after ``Environment`` of ``qvlib.core.types``.

    An action is a command of ``state.admissible``, in upper or lower case; all others are refused.
    A game ends when it is won or lost, and after ``max_steps`` commands: the terminal reward is
    then the score so far over the largest one, as in the First TextWorld Problems competition. A
    refused action is no command: an episode that runs out of steps through refused ones is cut off,
    and counts as 0.

    splits: split -> tasks, ``task.goal`` is the game's path below ``folder``.
    """

    folder: Path
    splits: Mapping[str, Sequence[Task]] = field(repr=False)
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    skipped: int = 0
    max_steps: int = 10
    timeout_value: float = -0.5
    name: str = "textworld"

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of ``train``, ``dev`` or ``test``, in a fixed order.

        Raises:
            QvlibError: no such split, or it has no game.
        """
        if split not in games.SPLITS:
            raise QvlibError(f"split {split!r}: the splits are {', '.join(games.SPLITS)}")
        if not self.splits[split]:
            raise QvlibError(
                f"split {split!r} is empty: raise its share or game_count, "
                f"or put games into {split}/"
            )
        return self.splits[split]

    def reset(self, task: Task) -> State:
        """The first room, without title and objective, which is the instruction."""
        now = self.machines.after(task.goal, ())
        world = Played((), now.score)
        return State(task, now.text, admissible=now.admissible, world=world, opening=now.text)

    def step(self, state: State, action: str) -> State:
        """The state after a command."""
        command = None if state.done else _spelt(state, action)
        if command is None:
            return replace(
                state,
                observation=REFUSED,
                history=(*state.history, Step(action, REFUSED)),
                valid=False,
            )
        commands = (*state.world.commands, command)
        now = self.machines.after(state.task.goal, commands)
        done = now.over or len(commands) >= self.max_steps
        return State(
            state.task,
            now.text,
            (*state.history, Step(action, now.text)),
            () if done else now.admissible,
            self._reward(now) if done else 0.0,
            done,
            True,
            Played(commands, now.score),
            opening=state.opening,
        )

    def accepts(self, state: State, action: str) -> bool:
        """False if the command would be refused, or shows what was shown since anything changed."""
        command = None if state.done else _spelt(state, action)
        if command is None:
            return False
        if not looks(command):
            return True
        for before in reversed(state.world.commands):
            if before == command:
                return False
            if not looks(before):
                return not (
                    command == "look" and before.startswith("go ")
                )  # the new room was described
        return command != "look"

    def data_hashes(self) -> dict[str, str]:
        """File name -> sha256 of every game read, for manifests."""
        return dict(self.hashes)

    @functools.cached_property
    def machines(self) -> Machines:
        """What plays the games; states never refer to it."""
        return Machines(self.folder)

    def _reward(self, now: Moment) -> float:
        return (
            1.0
            if now.won
            else min(1.0, max(0.0, now.score / now.max_score))
            if now.max_score
            else 0.0
        )


def looks(command: str) -> bool:
    """Is it a command that changes nothing in the world?"""
    return command in LOOKING or command.startswith("examine ")


def _spelt(state: State, action: str) -> str | None:
    """The admissible command that an action means, None if there is none."""
    wanted = " ".join(action.lower().split())
    return next((command for command in state.admissible or () if command.lower() == wanted), None)


def build(
    folder: str | Path,
    *,
    max_steps: int = 10,
    timeout_value: float = -0.5,
    dev_share: float = 0.1,
    test_share: float = 0.3,
    in_order: bool = False,
) -> TextWorld:
    """TextWorld on a folder of games; ``games.find`` tells of the splits and of ``in_order``.

    Raises:
        QvlibError: textworld is not installed, or there are no games in the folder.
    """
    games.library()
    paths_of = games.find(Path(folder), dev_share, test_share, in_order)
    splits = {
        split: tuple(games.make_task(Path(folder), path) for path in paths)
        for split, paths in paths_of.items()
    }
    hashes = {
        path: games.content_hash(Path(folder) / path)
        for paths in paths_of.values()
        for path in paths
    }
    return TextWorld(Path(folder), splits, hashes, max_steps=max_steps, timeout_value=timeout_value)
