"""A longer campaign of kill -9: ``python tests/campaign_kill.py [KILLS] [--seed S]``; 24 kills take about ten minutes.

Rounds of one kill aimed at each stage, each round a fresh run, with one process and with two in turn.
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

from killing import differences, disturb, outcome, run, seconds, tiny


def campaign(kills: int, seed: int, folder: Path) -> dict[str, object]:
    """Kill at least so often; returns the counts."""
    draw = random.Random(seed)
    undisturbed = tiny(folder / "undisturbed")
    run(undisturbed)
    took, right = seconds(undisturbed), outcome(undisturbed)
    made, lost, repeated, changed = [], 0, 0, []
    print(f"{'kill':>4}  {'round':>5}  {'processes':>9}  {'killed':<13}  {'aimed at':<11}  {'struck':<11}  finished records kept")
    number = 0
    while len(made) < kills:
        number += 1
        params = tiny(folder / f"round-{number}", processes=2 - number % 2)
        found = disturb(params, list(took)[: kills - len(made)], took, draw)
        for kill in found.kills:
            made.append(kill)
            print(f"{len(made):>4}  {number:>5}  {params.processes:>9}  {kill.victim:<13}  {kill.aimed:<11}  {kill.struck:<11}  "
                  f"{kill.finished}", flush=True)
        lost, repeated = lost + found.lost, repeated + found.repeated
        changed += [f"round {number}: {name}: {what}" for name, what in differences(right, outcome(params)).items()]
    print(*changed, sep="\n", end="\n" * bool(changed))
    return {"kills": len(made), "rounds": number, "seed": seed, "lost": lost, "repeated": repeated, "tables_equal": not changed,
            "by_stage": Counter(kill.struck for kill in made)}


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
