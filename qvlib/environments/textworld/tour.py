"""A first look at a game: its recipe for winning, and its points counted by hand."""

from __future__ import annotations

import json
import re

from qvlib.base.markup import code
from qvlib.core.episodes import visited
from qvlib.core.types import Task
from qvlib.environments.textworld.environment import TextWorld
from qvlib.environments.textworld.player import Player
from qvlib.environments.tours import Tour, demonstrated

WORLD = (
    "This world is TextWorld (arXiv 1806.11532): a generated text game. An action is a command "
    "such as `open fridge`, an observation what the game answers."
)
RULE = """\
A game ends when it is won or lost, or when the steps run out. The terminal reward is 1 for a game
that is won, else

    reward = points so far / points of the whole game

The game says so whenever its score goes up."""
WON = "*** The End ***"
_POINTS = re.compile(r"score has just gone up by (\w+) points?")
_NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
}


def tour(environment: TextWorld, task: Task) -> Tour:
    """The tour of a game; the walk is that of a player who makes no mistake."""
    told = json.loads((environment.folder / task.goal).with_suffix(".json").read_text())
    most = sum(quest["reward"] for quest in told["quests"])
    walk = demonstrated(environment, task, Player(environment, error=0.0))
    seen = visited(environment, task, walk)
    points = sum(
        _NUMBERS.get(n, int(n) if n.isdigit() else 0)
        for s in seen
        for n in _POINTS.findall(s.observation)
    )
    winning = ", ".join(code(command) for command in told["metadata"].get("walkthrough", ()))
    goal = (
        f"The game has {len(told['quests'])} parts that earn points, {most} together. "
        f"It can be won by {winning or 'commands that it does not tell'}."
    )
    notes = ("The first room. Every observation is the game's answer to the last command.",)
    won = WON in seen[-1].observation
    return Tour(
        WORLD,
        goal,
        walk,
        RULE,
        notes,
        1.0 if won else points / most if most else 0.0,
        f"The game spoke of {points} of {most} points{', and of its end' if won else ''}",
    )
