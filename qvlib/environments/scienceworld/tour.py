"""A first look at an experiment: its gold actions as far as the steps allow, and their score."""

from __future__ import annotations

from qvlib.base.markup import code, literal
from qvlib.core.episodes import replay
from qvlib.core.types import Task
from qvlib.environments.scienceworld.environment import ScienceWorld
from qvlib.environments.scienceworld.scientist import Scientist
from qvlib.environments.scienceworld.simulator import simulator
from qvlib.environments.tours import Tour, demonstrated

WORLD = (
    "This world is ScienceWorld (arXiv 2203.07540): experiments of primary school in a simulated "
    "house. An action is a command such as `open door to kitchen`, an observation what it shows."
)
RULE = """\
An experiment ends when it is solved or failed, or when the steps run out. The simulator counts a
score from -100 to 100 for the parts of the task that were reached:

    reward = max(0, score) / 100"""
NOTES = (
    "The first look around. What can be done is told nowhere: there are thousands of actions.",
)


def tour(environment: ScienceWorld, task: Task) -> Tour:
    """The tour of an experiment."""
    name, variation, gold = task.goal
    walk = demonstrated(environment, task, Scientist(error=0.0))
    commands = replay(environment, task, walk).world
    score = 100 * simulator().answer(name, variation, commands[:-1], commands[-1]).score
    reached = "; ".join(simulator().reached(name, variation, commands))
    goal = (
        f"The task is variation {variation} of {code(name)}; "
        f"ScienceWorld's own solution takes {len(gold)} actions."
    )
    return Tour(
        WORLD,
        goal,
        walk,
        RULE,
        NOTES,
        max(0, score) / 100,
        f"Reached: {literal(reached) or 'nothing'}. The simulator's score is {score:.1f}",
    )
