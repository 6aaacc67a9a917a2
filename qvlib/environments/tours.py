"""A first look at a task: its goal, a sensible walk, and its reward counted again by the rule."""

from __future__ import annotations

from dataclasses import dataclass

from qvlib.base import markup
from qvlib.core.episodes import demonstrate
from qvlib.core.types import Agent, Environment, Task


@dataclass(frozen=True, slots=True)
class Tour:
    """What a world tells of one of its tasks; all texts are Markdown.

    world: what the world is. goal: what the task asks for exactly, which agents are not told.
    walk: actions that a sensible agent makes, to the end of the episode or as far as known.
    notes: what to see in the first state, after the first action, and so on, as far as there is
        something to say.
    rule: how the terminal reward is counted.
    by_hand: the reward at the walk's end, counted by that rule from what the world tells of the
        walk; None where the world tells no rule.
    counted: the count in words.
    """

    world: str
    goal: str
    walk: tuple[str, ...]
    rule: str
    notes: tuple[str, ...] = ()
    by_hand: float | None = None
    counted: str = ""

    def note(self, step: int) -> str:
        """What to see after ``step`` actions, "" where nothing is noted."""
        return self.notes[step] if step < len(self.notes) else ""


def general(environment: Environment, task: Task, agent: Agent | None) -> Tour:
    """The tour of a world that brings none: the walk is the ``agent``'s, where there is one."""
    return Tour(
        f"This world is {markup.code(environment.name)}, an environment of its own.",
        "What the task asks for is in its goal, the environment's own part.",
        demonstrated(environment, task, agent) if agent else (),
        "The environment counts it; it tells no rule by which it could be counted again here.",
    )


def demonstrated(environment: Environment, task: Task, agent: Agent) -> tuple[str, ...]:
    """The actions of an agent, one draw each, from the first state to the end or ``max_steps``."""
    (record,) = demonstrate(environment, [task], agent, seed=0, width=1)
    return tuple(record["actions"])
