"""What every environment promises (``qvlib.core.types.Environment``), as checks for any of them.

Each check plays or steps, and raises AssertionError with a message that names the rule, the task
and the action. ``check_environment`` runs them all.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.types import Agent, Environment, Request, State, Task

SPLITS = ("train", "dev", "test")
REFUSED = "no such action"
SLACK = 20  # calls that a step from a kept state may need beyond twice those of its first time
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair


def check_environment(
    environment: Environment,
    agent: Agent,
    *,
    tasks: int = 3,
    splits: Sequence[str] = SPLITS,
    refused: str = REFUSED,
    goes_on: bool = False,
    seed: int = 0,
) -> int:
    """Put an environment through all checks, on the first tasks of each split.

    agent: plays the first ``tasks`` tasks of each split.
    refused: an action that the environment refuses in every state.
    goes_on: actions work after the end, as in the original; else they must be refused.

    Returns the number of states that were looked at.

    Raises:
        AssertionError: a rule is broken.
    """
    check_description(environment)
    check_tasks(environment, splits)
    looked_at = 0
    for split in splits:
        for task in environment.tasks(split)[:tasks]:
            check_reset(environment, task)
            actions, states = play(environment, task, agent, seed)
            check_rewards(states)
            check_history(actions, states)
            check_frozen(states)
            check_unchanged(environment, actions, states)
            check_replay(environment, actions, states)
            check_fork(environment, task, actions)
            check_descriptions(states)
            check_opening(states)
            check_refusal(environment, states, refused)
            check_accepts(environment, actions, states)
            check_no_limit(environment, task, refused)
            if states[-1].done:
                check_end(environment, states[-1], [refused, *actions], goes_on)
            looked_at += len(states)
    return looked_at


def play(
    environment: Environment, task: Task, agent: Agent, seed: int = 0
) -> tuple[list[str], list[State]]:
    """The agent's actions until the end or ``max_steps``, and the states around them, one more."""
    states, actions = [environment.reset(task)], []
    while not states[-1].done and len(actions) < environment.max_steps:
        key = (seed, task.id, str(len(actions)))
        actions.append(agent.propose([Request(states[-1], 1, key)])[0][0].action)
        states.append(environment.step(states[-1], actions[-1]))
    return actions, states


def check_description(environment: Environment) -> None:
    """A name, at least one step, a timeout value that is no reward."""
    _require(
        isinstance(environment.name, str) and environment.name,
        "name",
        f"it is {environment.name!r}, not a text",
    )
    _require(
        isinstance(environment.max_steps, int) and environment.max_steps >= 1,
        "max_steps",
        f"it is {environment.max_steps!r}, not a whole number from 1",
    )
    _require(
        -1 <= environment.timeout_value <= 0,
        "timeout_value",
        f"it is {environment.timeout_value!r}, not in [-1, 0]",
    )


def check_tasks(environment: Environment, splits: Sequence[str] = SPLITS) -> None:
    """Texts can be written, ids are unique, groups stay within a split, the order never changes."""
    seen: dict[str, str] = {}
    groups: dict[str, str] = {}
    for split in splits:
        tasks = list(environment.tasks(split))
        _require(len(tasks) > 0, "tasks", f"split {split!r} has none")
        _require(
            [t.id for t in tasks] == [t.id for t in environment.tasks(split)],
            "order of tasks",
            f"split {split!r} comes in another order when asked again",
        )
        for task in tasks:
            _require(
                task.id not in seen,
                "unique ids",
                f"{task.id!r} is in {seen.get(task.id)} and again in {split}",
            )
            seen[task.id] = split
            for name in ("id", "instruction", "group"):
                _require(
                    is_writable(getattr(task, name)),
                    "texts of tasks",
                    f"the {name} of task {task.id!r} is no text that a file can hold",
                )
            _require(bool(task.instruction.strip()), "instructions", f"task {task.id!r} has none")
            _require(
                bool(task.group),
                "groups",
                f"task {task.id!r} has none; name what it shares with tasks that must be of the "
                "same split, or give its own id",
            )
            other = groups.setdefault(task.group, split)
            _require(
                other == split,
                "disjoint splits",
                f"group {task.group!r} is in {other} and in {split}",
            )


def is_writable(value: Any) -> bool:
    """Whether it is a text that UTF-8 can hold: half a surrogate pair is none."""
    return isinstance(value, str) and not _HALF.search(value)


def check_reset(environment: Environment, task: Task) -> None:
    """The first state is always the same: no history or reward, not done, something to read."""
    state = environment.reset(task)
    _require(
        state == environment.reset(task), "reset", f"{task.id}: two resets give different states"
    )
    _require(state.task == task, "reset", f"{task.id}: the state is of task {state.task.id!r}")
    _require(
        state.history == () and state.valid and not state.done and state.reward == 0,
        "reset",
        f"{task.id}: the first state has a history, a reward, is refused or done",
    )
    _require(bool(state.observation), "reset", f"{task.id}: the first observation is empty")


def check_rewards(states: Sequence[State]) -> None:
    """A reward is a finite number in [0, 1], and 0 before the end."""
    for state in states:
        _require(
            math.isfinite(state.reward) and 0 <= state.reward <= 1,
            "rewards",
            f"{_where(state)}: {state.reward!r} is not in [0, 1]",
        )
        _require(
            state.done or state.reward == 0,
            "rewards",
            f"{_where(state)}: {state.reward!r} before the end",
        )


def check_history(actions: Sequence[str], states: Sequence[State]) -> None:
    """Each step adds itself to the history, with the observation that is read now."""
    for action, before, after in zip(actions, states, states[1:], strict=False):
        _require(
            after.history[:-1] == before.history and after.depth == before.depth + 1,
            "history",
            f"{_where(after)}: it is not the one before and one step more",
        )
        step = after.history[-1]
        _require(
            step.action == action and step.observation == after.observation,
            "history",
            f"{_where(after)}: its last step is {step.action!r} -> {step.observation!r:.60}",
        )
        _require(after.task == before.task, "history", f"{_where(after)}: the task changed")


def check_frozen(states: Sequence[State]) -> None:
    """States are values: no field can be set, and what they hold is hashable, so cannot change."""
    for state in states:
        for name in ("observation", "world"):
            try:
                setattr(state, name, getattr(state, name))
            except (dataclasses.FrozenInstanceError, AttributeError):
                continue
            _require(
                False,
                "frozen states",
                f"{_where(state)}: its {name} can be set; use frozen dataclasses",
            )
        for name in ("world", "history"):
            try:
                hash(getattr(state, name))
            except TypeError as error:
                raise AssertionError(
                    f"frozen states: {_where(state)}: its {name} is mutable ({error}); "
                    "use tuples and frozen dataclasses"
                ) from None


def check_descriptions(states: Sequence[State]) -> None:
    """Where actions are described, each that is listed has a text, which the next step keeps."""
    for state in states:
        _require(
            not state.descriptions or len(state.descriptions) == len(state.admissible or ()),
            "descriptions",
            f"{_where(state)}: {len(state.descriptions)} for {len(state.admissible or ())} actions",
        )
        _require(
            all(map(is_writable, state.descriptions)),
            "descriptions",
            f"{_where(state)}: one is no text that a file can hold",
        )
    for before, after in itertools.pairwise(states):
        step = after.history[-1]
        _require(
            step.described == before.describe(step.action),
            "descriptions",
            f"{_where(after)}: its last step is described as {step.described!r:.60}",
        )


def check_opening(states: Sequence[State]) -> None:
    """An opening is the first observation, and every later state still tells it."""
    opening = states[0].opening
    _require(
        opening in ("", states[0].observation),
        "opening",
        f"{_where(states[0])}: {opening!r:.60} is not what is observed there",
    )
    for state in states:
        _require(
            state.opening == opening,
            "opening",
            f"{_where(state)}: {state.opening!r:.60}, but it began with {opening!r:.60}",
        )


def check_unchanged(
    environment: Environment, actions: Sequence[str], states: Sequence[State]
) -> None:
    """Stepping a state, even to the end and more than once, leaves it as it was."""
    before = [
        copy.deepcopy((s.observation, s.history, s.admissible, s.reward, s.done, s.valid, s.world))
        for s in states
    ]
    for state, action in zip(states, actions, strict=False):
        for other in (action, *actions):
            if not state.done:
                environment.step(state, other)
    for state, was in zip(states, before, strict=True):
        now = (
            state.observation,
            state.history,
            state.admissible,
            state.reward,
            state.done,
            state.valid,
            state.world,
        )
        _require(now == was, "unchanged states", f"{_where(state)}: stepping changed it")


def check_replay(environment: Environment, actions: Sequence[str], states: Sequence[State]) -> None:
    """The same actions give the same states again."""
    state = environment.reset(states[0].task)
    for action, was in zip(actions, states[1:], strict=True):
        state = environment.step(state, action)
        _require(
            state == was,
            "replay",
            f"{_where(was)}: the same actions gave {state.observation!r:.60} "
            f"(reward {state.reward}) instead of {was.observation!r:.60} (reward {was.reward})",
        )


def check_fork(environment: Environment, task: Task, actions: Sequence[str]) -> None:
    """A kept state can be stepped again, with the same outcome, for about as many calls.

    Calls are counted, not timed: an environment that replays the history to come back needs more
    the deeper it is.
    """
    states, costs = [environment.reset(task)], []
    for action in actions:
        with _Calls() as calls:
            states.append(environment.step(states[-1], action))
        costs.append(calls.count)
    for state, action, after, cost in zip(states, actions, states[1:], costs, strict=False):
        with _Calls() as calls:
            again = environment.step(state, action)
        _require(
            again == after,
            "fork",
            f"{_where(after)}: stepping the kept state again gave {again.observation!r:.60}",
        )
        _require(
            calls.count <= 2 * cost + SLACK,
            "cheap fork",
            f"{_where(after)}: {calls.count} calls from the kept state, {cost} the first time; "
            "keep the world in the state",
        )


def check_refusal(environment: Environment, states: Sequence[State], refused: str) -> None:
    """A refused action gives ``valid=False``, costs a step and changes nothing but what is read."""
    for state in states:
        if state.done:
            continue
        after = environment.step(state, refused)
        where = f"{_where(state)}: {refused!r}"
        _require(not after.valid, "refused actions", f"{where} gave valid=True")
        same = all(
            getattr(after, name) == getattr(state, name)
            for name in ("world", "admissible", "reward", "done", "task")
        )
        _require(same, "refused actions", f"{where} changed the state")
        _require(
            after.depth == state.depth + 1 and after.history[-1].action == refused,
            "refused actions",
            f"{where} is not the last step of the history",
        )
        _require(
            environment.accepts(state, refused) is not True,
            "refused actions",
            f"{where} is accepted beforehand",
        )


def check_accepts(
    environment: Environment, actions: Sequence[str], states: Sequence[State]
) -> None:
    """``accepts`` tells True, False or None, without stepping; what it promises is not refused."""
    for state, action in zip(states, actions, strict=False):
        told = environment.accepts(state, action)
        _require(
            told is None or isinstance(told, bool), "accepts", f"{_where(state)}: it told {told!r}"
        )
        _require(
            not told or environment.step(state, action).valid,
            "accepts",
            f"{_where(state)}: {action!r} is accepted beforehand and then refused",
        )
        _require(
            environment.accepts(state, action) == told,
            "accepts",
            f"{_where(state)}: it told otherwise the second time",
        )


def check_no_limit(environment: Environment, task: Task, refused: str) -> None:
    """``max_steps`` is for agents and searches to keep: that many refused actions end nothing."""
    state = environment.reset(task)
    for _ in range(environment.max_steps + 1):
        state = environment.step(state, refused)
    _require(
        not state.done and state.reward == 0,
        "step limit",
        f"{_where(state)}: it ended by itself at max_steps",
    )


def check_end(
    environment: Environment, ended: State, actions: Sequence[str], goes_on: bool = False
) -> None:
    """After the end actions are refused (``valid=False``, a QvlibError); the reward stays."""
    was = copy.deepcopy((ended.observation, ended.history, ended.reward, ended.done, ended.world))
    for action in dict.fromkeys(actions):
        try:
            after = environment.step(ended, action)
        except QvlibError:
            continue
        _require(
            goes_on or (not after.valid and after.done and after.reward == ended.reward),
            "after the end",
            f"{_where(ended)}: {action!r} still works",
        )
    _require(
        (ended.observation, ended.history, ended.reward, ended.done, ended.world) == was,
        "after the end",
        f"{_where(ended)}: a step after it changed it",
    )


class _Calls:
    """Counts the Python calls in its block."""

    count = 0

    def __enter__(self) -> _Calls:
        self.before = sys.getprofile()
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self.before)

    def _see(self, frame: Any, event: str, argument: Any) -> None:
        self.count += event == "call"


def _require(holds: bool, rule: str, why: str) -> None:
    if not holds:
        raise AssertionError(f"{rule}: {why}")


def _where(state: State) -> str:
    return f"{state.task.id} after {[step.action for step in state.history]!r:.200}"
