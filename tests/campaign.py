"""Kills and bad inputs, in one command: ``python -m tests.campaign [--kills 100] [--jobs 2]``.

100 kills: rounds of a tiny run each, whose process group, first process, kernel or one of its
workers gets kill -9 at random moments of every stage. Every bad input of ``bad_inputs.py``, each in
a process of its own. Counts are printed as tables; with ``--folder`` they are kept, and the same
command goes on from there. ``--kills 0`` or ``--inputs ''`` leaves a part out.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qvlib.pipeline.params import EPISODES
from tests import bad_inputs
from tests.bad_inputs import CASES, KEY, Bad
from tests.killing import WAYS, course, differences, disturb, outcome, run_alone, tiny

ROOT = Path(__file__).parents[1]
CLEAR, UNCLEAR, TRACEBACK, WRONG, HANGS = OUTCOMES = (
    "clear",
    "unclear",
    "traceback",
    "silently wrong",
    "hangs",
)
LONGEST = 300  # seconds after which a bad input is taken to hang
LONGEST_LINE = 300  # characters of an error
MEMORY = 6 << 30  # bytes of addresses that a bad input may take: else one could take the machine


def classify(case: Bad, code: int | None, out: str, err: str) -> str:
    """What became of a bad input: one of ``OUTCOMES``; ``code``: None = it did not end."""
    if code is None:
        return HANGS
    if "Traceback (most recent call last)" in out + err or code < 0:
        return TRACEBACK
    if case.taken:
        if code == 0:
            return CLEAR if all(name in out for name in case.names) else WRONG
        return UNCLEAR
    if code == 0:
        return WRONG
    lines = [line for line in err.splitlines() if line and not line.startswith("warning: ")]
    clear = (
        code == 2
        and len(lines) == 1
        and lines[0].startswith("error: ")
        and len(lines[0]) <= len("error: ") + LONGEST_LINE
        and all(name in lines[0] for name in case.names)
        and lines[0].isprintable()
        and KEY not in out + err
    )
    return CLEAR if clear else UNCLEAR


def try_input(case: Bad, made: Path) -> dict[str, Any]:
    """Do a bad input in a process of its own; gives its name, its outcome and what it said."""
    with tempfile.TemporaryDirectory() as here:
        command = [sys.executable, "-m", "tests.bad_inputs", str(made), here, case.name]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                timeout=LONGEST,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            )
        except subprocess.TimeoutExpired:
            return {"name": case.name, "outcome": HANGS, "said": ""}
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    said = (err.strip() or out.strip())[-2000:]
    return {
        "name": case.name,
        "outcome": classify(case, done.returncode, out, err),
        "said": said.replace(here, "HERE"),
    }


def kill_round(number: int, seed: int, folder: Path, most: int) -> dict[str, Any]:
    """One run that is killed at every stage, at most so often; its kills and what they did.

    The rounds take the ways of ``WAYS`` in turn.
    """
    undisturbed = tiny(folder / "undisturbed")
    stages = course(undisturbed)
    draw = random.Random(f"{seed} {number}")
    before = [stage for stage in stages if not stage.startswith(EPISODES)]
    arms = [stage for stage in stages if stage.startswith(EPISODES)]
    struck_arms = sorted(draw.sample(arms, 3), key=arms.index)
    targets = [s for s in before for _ in range(3 if stages[s].records else 1)] + struck_arms
    way = WAYS[number % len(WAYS)]
    params = tiny(folder / f"round-{number}", processes=way.processes)
    found = disturb(params, targets[:most], stages, draw, way)
    right, got = outcome(undisturbed), outcome(params)
    return {
        "round": number,
        "way": way.name,
        "kills": [asdict(kill) for kill in found.kills],
        "lost": found.lost,
        "repeated": found.repeated,
        "different": differences(right, got),
    }


def kills(folder: Path, least: int, seed: int, jobs: int) -> list[dict[str, Any]]:
    """Rounds of kills until there were so many."""
    done = _read(folder / "kills.jsonl")
    if least:
        run_alone(tiny(folder / "undisturbed"))

    def enough() -> bool:
        return sum(len(each["kills"]) for each in done) >= least

    def rounds() -> Iterator[Callable[[], dict[str, Any]]]:
        known = {each["round"] for each in done}
        for number in range(10 * least):
            if enough():
                return
            if number not in known:
                left = least - sum(len(each["kills"]) for each in done)
                yield lambda number=number, left=left: kill_round(number, seed, folder, left)

    for found in _side_by_side(rounds(), jobs):
        done.append(_kept(folder / "kills.jsonl", found))
        for kill in found["kills"]:
            print(f"  round {found['round']}, {found['way']}: {kill}", flush=True)
        print(
            f"round {found['round']}: {len(found['kills'])} kills, {found['lost']} lost, "
            f"{found['repeated']} twice, {len(found['different'])} tables differ",
            flush=True,
        )
    return done


def inputs(folder: Path, cases: Sequence[Bad], jobs: int) -> list[dict[str, Any]]:
    """Try bad inputs that were not tried yet."""
    done = _read(folder / "inputs.jsonl")
    known = {each["name"] for each in done}
    missing = [case for case in cases if case.name not in known]
    if missing:
        bad_inputs.prepare(folder / "made")
    todo = (lambda case=case: try_input(case, folder / "made") for case in missing)
    for found in _side_by_side(todo, jobs):
        done.append(_kept(folder / "inputs.jsonl", found))
        print(f"[{len(done)}/{len(cases)}] {found['outcome']:<14}  {found['name']}", flush=True)
    names = {case.name for case in cases}
    return [each for each in done if each["name"] in names]


def tables(killed: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]) -> str:
    """The counts, as tables, and what was not as it must be."""
    parts = []
    if killed:
        all_kills = [kill for each in killed for kill in each["kills"]]
        counts = {
            "kills": len(all_kills),
            "losses": sum(each["lost"] for each in killed),
            "doubles": sum(each["repeated"] for each in killed),
            "tables that differ": sum(len(each["different"]) for each in killed),
        }
        victims = Counter(kill["victim"] for kill in all_kills)
        struck = Counter(kill["struck"] for kill in all_kills)
        parts += [_row(counts), _row(victims), _row(struck)]
        parts += [
            f"round {each['round']}: {name}: {what}"
            for each in killed
            for name, what in each["different"].items()
        ]
    if tried:
        found = Counter(each["outcome"] for each in tried)
        parts.append(_row({"bad inputs": len(tried), **{o: found[o] for o in OUTCOMES}}))
        parts += [
            f"{each['outcome']}: {each['name']}\n    {_last_line(each['said'])[:400]}"
            for each in sorted(tried, key=lambda each: (each["outcome"], each["name"]))
            if each["outcome"] != CLEAR
        ]
    return "\n\n".join(parts)


def is_right(killed: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]) -> bool:
    """Whether nothing was lost, done twice or changed, and every bad input was told clearly."""
    return all(
        each["lost"] == each["repeated"] == 0 and not each["different"] for each in killed
    ) and all(each["outcome"] == CLEAR for each in tried)


def _row(counts: Mapping[str, int]) -> str:
    widths = [max(len(str(name)), len(str(count))) for name, count in counts.items()]
    rows = (counts.keys(), ["-" * width for width in widths], counts.values())
    return "\n".join(
        "| " + " | ".join(f"{cell!s:>{w}}" for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _side_by_side(
    todo: Iterable[Callable[[], dict[str, Any]]], jobs: int
) -> Iterator[dict[str, Any]]:
    """What the calls give, as they end; the next is asked for when a place is free."""
    waiting, running = iter(todo), set()
    with ThreadPoolExecutor(jobs) as pool:
        while True:
            while len(running) < jobs and (call := next(waiting, None)) is not None:
                running.add(pool.submit(call))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for each in ended:
                yield each.result()


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _kept(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(found) + "\n")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status says whether all was as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills, at least")
    parser.add_argument(
        "--inputs", default=".", help="bad inputs whose name holds this; '.' = all, '' = none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="side by side")
    parser.add_argument("--folder", type=Path, help="where counts are kept, to go on later")
    given = parser.parse_args(arguments)
    wanted = "" if given.inputs == "." else given.inputs
    cases = [case for case in CASES.values() if given.inputs and wanted in case.name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder.resolve() if given.folder else Path(temporary)
        tried = inputs(folder, cases, given.jobs)
        killed = kills(folder, given.kills, given.seed, given.jobs)
    print(f"\n{tables(killed, tried)}")
    return 0 if is_right(killed, tried) else 1


if __name__ == "__main__":
    sys.exit(main())
