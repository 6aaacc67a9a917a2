"""A longer campaign of kill -9: ``python tests/campaign_kill.py [KILLS] [--seed S]``.

24 kills take about six minutes. Rounds of one kill aimed at each stage, three at trees and three
at arms drawn at random, each round a fresh run, with one process and with two in turn.
Prints a line a kill, then what was lost, repeated or changed, as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from killing import course, differences, disturb, outcome, run, tiny

from qvlib.pipeline.params import EPISODES

FORM = "{:>4}  {:>5}  {:>9}  {:<13}  {:<27}  {:<11}  {}"


def campaign(kills: int, seed: int, folder: Path) -> dict[str, object]:
    """Kill at least so often; returns the counts."""
    draw = random.Random(seed)
    undisturbed = tiny(folder / "undisturbed")
    run(undisturbed)
    stages, right = course(undisturbed), outcome(undisturbed)
    before = [stage for stage in stages if not stage.startswith(EPISODES)]
    arms = [stage for stage in stages if stage.startswith(EPISODES)]
    made, lost, repeated, changed = [], 0, 0, []
    print(
        FORM.format(
            "kill", "round", "processes", "killed", "aimed at", "struck", "finished records kept"
        )
    )
    number = 0
    while len(made) < kills:
        number += 1
        struck_arms = sorted(draw.sample(arms, 3), key=arms.index)
        targets = [s for s in before for _ in range(3 if stages[s].records else 1)] + struck_arms
        params = tiny(folder / f"round-{number}", processes=2 - number % 2)
        found = disturb(params, targets[: kills - len(made)], stages, draw)
        for kill in found.kills:
            made.append(kill)
            print(
                FORM.format(
                    len(made),
                    number,
                    params.run.processes,
                    kill.victim,
                    kill.aimed,
                    kill.struck,
                    kill.finished,
                ),
                flush=True,
            )
        lost, repeated = lost + found.lost, repeated + found.repeated
        changed += [
            f"round {number}: {name}: {what}"
            for name, what in differences(right, outcome(params)).items()
        ]
    print(*changed, sep="\n", end="\n" * bool(changed))
    return {
        "kills": len(made),
        "rounds": number,
        "seed": seed,
        "lost": lost,
        "repeated": repeated,
        "tables_equal": not changed,
        "by_stage": Counter(kill.struck for kill in made),
    }


def main() -> int:
    """The command; its exit status says whether all was kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", nargs="?", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(given.kills, given.seed, Path(folder))
    print(json.dumps(found))
    return 0 if found["lost"] == found["repeated"] == 0 and found["tables_equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
