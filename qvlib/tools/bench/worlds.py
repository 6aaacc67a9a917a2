"""Steps of TextWorld a second behind the environment protocol, beside TextWorld's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from qvlib.base.seeding import generator
from qvlib.tools.bench.common import Rows, interleaved

GAMES, WALKS, BRANCHES = 3, 2, 2


def run(repeats: int) -> tuple[Rows, dict[str, Any]]:
    """The same random walks of admissible commands in cooking games, by two ways.

    By TextWorld's own environment and by ours.

    Rows: a walk from the start; then, from each state of a walk, stepping two commands: by a copy
    of TextWorld's environment, by playing the walk again in it, and from our kept state. Columns:
    steps, median CPU milliseconds a step and steps a CPU second. ``ratio``: ours to TextWorld's own
    along walks; ``branching``: ours to the quicker of its two.

    Raises:
        QvlibError: textworld is not installed.
    """
    from qvlib.environments.textworld import build
    from qvlib.environments.textworld.generator import generate, plan

    with tempfile.TemporaryDirectory() as folder:
        list(generate(Path(folder), plan("cooking", GAMES, 0, 0.3, 0.3)))
        environment = build(folder, in_order=True)
        tasks = [task for split in ("train", "dev", "test") for task in environment.tasks(split)]
        walks = [walk(environment, task, seed) for task in tasks for seed in range(WALKS)]
        ways = {
            "walk, TextWorld": _own_walk,
            "walk, ours": our_walk,
            "branch, TextWorld copied": _copied,
            "branch, TextWorld played again": _played_again,
            "branch, ours": branched,
        }
        steps = dict.fromkeys(ways, 0)

        def timed(way: str):
            def call() -> None:
                environment.machines.forget()
                steps[way] = sum(ways[way](environment, task, commands) for task, commands in walks)

            return call

        seconds = interleaved({way: timed(way) for way in ways}, repeats)
    rows = [
        {
            "way": way,
            "steps": steps[way],
            "ms a step": round(1000 * seconds[way] / steps[way], 2),
            "steps/s": round(steps[way] / seconds[way]),
        }
        for way in ways
    ]
    rate = {row["way"]: row["steps/s"] for row in rows}
    quicker = max(rate["branch, TextWorld copied"], rate["branch, TextWorld played again"])
    return rows, {
        "ratio": round(rate["walk, ours"] / rate["walk, TextWorld"], 2),
        "branching": round(rate["branch, ours"] / quicker, 2),
    }


def walk(environment: Any, task: Any, seed: int) -> tuple[Any, list[list[str]]]:
    """For each state of a random walk, the command that is taken, then others to branch with."""
    rng, state, commands = generator(0, "bench", task.id, seed), environment.reset(task), []
    while not state.done:
        drawn = rng.permutation(state.admissible)[:BRANCHES].tolist()
        commands.append(drawn)
        state = environment.step(state, drawn[0])
    return task, commands


def _start(environment: Any, task: Any) -> Any:
    import textworld

    env = textworld.start(
        str(environment.folder / task.goal),
        textworld.EnvInfos(admissible_commands=True, score=True),
    )
    env.reset()
    return env


def _own_walk(environment: Any, task: Any, commands: list[list[str]]) -> int:
    env = _start(environment, task)
    for first, *_ in commands:
        env.step(first)
    return len(commands)


def our_walk(environment: Any, task: Any, commands: list[list[str]]) -> int:
    state = environment.reset(task)
    for first, *_ in commands:
        state = environment.step(state, first)
    return len(commands)


def _copied(environment: Any, task: Any, commands: list[list[str]]) -> int:
    env = _start(environment, task)
    for drawn in commands:
        for command in drawn:
            env.copy().step(command)
        env.step(drawn[0])
    return sum(map(len, commands))


def _played_again(environment: Any, task: Any, commands: list[list[str]]) -> int:
    env = _start(environment, task)
    for depth, drawn in enumerate(commands):
        for command in drawn:
            env.reset()
            for first, *_ in commands[:depth]:
                env.step(first)
            env.step(command)
    return sum(map(len, commands))


def branched(environment: Any, task: Any, commands: list[list[str]]) -> int:
    state = environment.reset(task)
    for drawn in commands:
        for command in drawn:
            environment.step(state, command)
        state = environment.step(state, drawn[0])
    return sum(map(len, commands))
