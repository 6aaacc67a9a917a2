"""Steps of ScienceWorld a second behind the environment protocol, beside the bare simulator's."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from qvlib.base.seeding import generator
from qvlib.tools.bench.common import Rows, interleaved
from qvlib.tools.bench.worlds import branched, our_walk

LENGTH, BRANCHES = 12, 2  # commands of a walk, commands that are tried after each of its states
Walk = tuple[Any, list[list[str]]]
"""(task, for each state of a walk the command that is taken, then others to branch with)."""


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """The same random walks of possible commands in ScienceWorld's experiments, by two ways.

    By the bare simulator and by ours.

    Rows: a walk from the start; then, from each state of a walk, stepping two commands: by playing
    the walk again in the bare simulator (it is reset; it cannot be copied), and from our state.
    Columns: steps, median milliseconds of the wall clock a step (the simulator is a Java process of
    its own) and steps a second. What ours remembers is emptied before each round. The bare one's
    step also lists every valid action. ``ratio``: ours to the bare simulator's along walks;
    ``branching``: the same from branches.

    Raises:
        QvlibError: scienceworld or Java is not installed.
    """
    from qvlib.environments.scienceworld import build
    from qvlib.environments.scienceworld.experiments import write_experiments
    from qvlib.environments.scienceworld.settings import ScienceWorldSettings
    from qvlib.environments.scienceworld.simulator import simulator

    env = simulator().env
    with TemporaryDirectory() as folder:
        write_experiments(ScienceWorldSettings(game_count=6), Path(folder))
        environment = build(folder, max_steps=LENGTH)
    walks = [
        walk(env, task) for split in ("train", "dev", "test") for task in environment.tasks(split)
    ]
    ways = {
        "walk, bare simulator": _own_walk,
        "walk, ours": our_walk,
        "branch, bare simulator played again": _played_again,
        "branch, ours": branched,
    }
    steps = dict.fromkeys(ways, 0)

    def timed(way: str):
        def call() -> None:
            simulator().forget()
            place = env if "bare" in way else environment
            steps[way] = sum(ways[way](place, *walk) for walk in walks)

        return call

    seconds = interleaved({way: timed(way) for way in ways}, repeats, perf_counter)
    rows = [
        {
            "way": way,
            "steps": steps[way],
            "ms a step": round(1000 * seconds[way] / steps[way], 2),
            "steps/s": round(steps[way] / seconds[way], 1),
        }
        for way in ways
    ]
    rate = {way: steps[way] / seconds[way] for way in ways}
    return rows, {
        "ratio": round(rate["walk, ours"] / rate["walk, bare simulator"], 2),
        "branching": round(rate["branch, ours"] / rate["branch, bare simulator played again"], 2),
    }


def walk(env: Any, task: Any) -> Walk:
    """A random walk of the simulator's own possible commands."""
    rng, commands = generator(0, "bench", task.id), []
    _start(env, task)
    for _ in range(LENGTH):
        drawn = rng.permutation(sorted(set(env.get_valid_action_object_combinations())))[
            :BRANCHES
        ].tolist()
        commands.append(drawn)
        if env.step(drawn[0])[2]:
            break
    return task, commands


def _start(env: Any, task: Any) -> None:
    env.load(*task.goal[:2])
    env.reset()


def _own_walk(env: Any, task: Any, commands: list[list[str]]) -> int:
    _start(env, task)
    for first, *_ in commands:
        env.step(first)
    return len(commands)


def _played_again(env: Any, task: Any, commands: list[list[str]]) -> int:
    env.load(*task.goal[:2])
    for depth, drawn in enumerate(commands):
        for command in drawn:
            env.reset()
            for first, *_ in commands[:depth]:
                env.step(first)
            env.step(command)
    return sum(map(len, commands))
