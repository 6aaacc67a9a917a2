"""ScienceWorld (Wang et al. 2022, arXiv 2203.07540): experiments of primary school, an optional extra that needs Java."""

from qvlib.environments.scienceworld.environment import ScienceWorld, build

INSTRUCTIONS = """\
You do an experiment in a house with several rooms. The task says what to reach.
Commands, one at a time: look around, inventory, task, go to a place, open, close, activate, deactivate, examine, read, pick up, eat or \
mix a thing, move, pour, dunk or connect a thing to another, use a thing on another, focus on a thing, wait.
Call things by their names, as in: open door to kitchen; move metal pot to stove; use thermometer in inventory on water. `focus on` says \
which thing the task is about: where the task asks for it, focus on nothing else."""

__all__ = ["INSTRUCTIONS", "ScienceWorld", "build"]
