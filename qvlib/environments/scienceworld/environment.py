"""ScienceWorld as functions of immutable states: a variation and the commands understood in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from qvlib.base.errors import QvlibError
from qvlib.core.types import State, Step, Task
from qvlib.environments.datafiles import sha256
from qvlib.environments.scienceworld.experiments import FILE, SPLITS, read_experiments
from qvlib.environments.scienceworld.simulator import simulator

LOOKING = ("look around", "inventory", "task")


@dataclass(frozen=True)
class ScienceWorld:
    """Experiments, after ``Environment`` of ``qvlib.core.types``; at most one simulator a process.

    Actions are free text (there are thousands at a time, so none are listed); what the simulator
    does not understand is refused. An experiment ends when it is solved or failed, and after
    ``max_steps`` commands (the paper allows 100): the terminal reward is then the score so far over
    100, at least 0. Refused actions are no commands: an episode that runs out of steps through them
    is cut off, and counts as 0.
    """

    splits: Mapping[str, Sequence[Task]] = field(repr=False)
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    skipped: int = 0
    max_steps: int = 100
    timeout_value: float = -0.5
    name: str = "scienceworld"

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of ``train``, ``dev`` or ``test``, in a fixed order.

        Raises:
            QvlibError: no such split, or it has no task.
        """
        if split not in SPLITS:
            raise QvlibError(f"split {split!r}: the splits are {', '.join(SPLITS)}")
        if not self.splits[split]:
            raise QvlibError(f"split {split!r} is empty: raise its share or game_count")
        return self.splits[split]

    def reset(self, task: Task) -> State:
        """The first look around."""
        text = simulator().start(*task.goal[:2]).text
        return State(task, text, world=(), opening=text)

    def step(self, state: State, action: str) -> State:
        """The state after an action (case and white space do not matter); ``world`` = commands."""
        command = _spelt(action)
        if state.done or not command:
            return replace(
                state, history=(*state.history, Step(action, state.observation)), valid=False
            )
        seen = simulator().answer(*state.task.goal[:2], state.world, command)
        history = (*state.history, Step(action, seen.text))
        if not seen.known:
            return replace(state, observation=seen.text, history=history, valid=False)
        commands = (*state.world, command)
        done = seen.over or len(commands) >= self.max_steps
        reward = min(1.0, max(0.0, seen.score)) if done else 0.0
        return State(
            state.task,
            seen.text,
            history,
            None,
            reward,
            done,
            True,
            commands,
            opening=state.opening,
        )

    def accepts(self, state: State, action: str) -> bool | None:
        """False for nothing and for looking once more in the same place; else only trying tells."""
        command = _spelt(action)
        looked = state.world[-1:] == (command,) or (command == "look around" and not state.world)
        return False if state.done or not command or (command in LOOKING and looked) else None

    def data_hashes(self) -> dict[str, str]:
        """File name -> sha256 of every file read, for manifests."""
        return dict(self.hashes)


def _spelt(action: str) -> str:
    return " ".join(action.lower().split())


def build(folder: str | Path, *, max_steps: int = 100, timeout_value: float = -0.5) -> ScienceWorld:
    """ScienceWorld on a folder with a list of experiments (``experiments`` writes it).

    Raises:
        QvlibError: Java or the package is not installed, or the list is missing or wrong.
    """
    simulator()
    splits = read_experiments(Path(folder))
    hashes = {FILE: sha256(Path(folder) / FILE)}
    return ScienceWorld(splits, hashes, max_steps=max_steps, timeout_value=timeout_value)
