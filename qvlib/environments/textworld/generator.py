"""Games from seeds, written as files that are read like anyone's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from qvlib.base.executors.processes import process_count, slices, stream
from qvlib.environments.textworld.games import library
from qvlib.environments.textworld.settings import TextWorldSettings

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    # kind: the challenge of textworld, its settings; each can be won in at most nine commands
    "cooking": (
        "tw-cooking",
        {"recipe": 1, "take": 1, "go": 1, "open": True, "cook": True, "cut": True, "drop": False},
    ),
    "treasure_hunter": ("tw-treasure_hunter", {"level": 13}),
    "coin_collector": ("tw-coin_collector", {"level": 105}),
}


def write_games(settings: TextWorldSettings, folder: Path, processes: int = 0) -> None:
    """Write the games that the settings ask for below ``folder``; those there are not made again.

    processes: on so many; 0 = one per core.

    Raises:
        QvlibError: textworld is not installed.
    """
    library()
    planned = plan(
        settings.games,
        settings.game_count,
        settings.catalogue_seed,
        settings.dev_share,
        settings.test_share,
    )
    todo = [(folder, some) for some in slices(planned, process_count(processes, "cpu"))]
    for _ in tqdm(stream(generate, todo), total=len(planned), desc="generating games", unit="game"):
        pass


def plan(
    kind: str, count: int, seed: int, dev_share: float, test_share: float
) -> list[tuple[str, str, int]]:
    """(kind, split, seed) of each game: a range of seeds a split, train first."""
    test, dev = (max(1, round(share * count)) for share in (test_share, dev_share))
    splits = ["train"] * (count - test - dev) + ["dev"] * dev + ["test"] * test
    return [(kind, split, 1_000_000 * seed + i) for i, split in enumerate(splits)]


def generate(folder: Path, planned: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    """Write games into ``folder``/<split>, but those that are there; yields the path of each."""
    for kind, split, seed in planned:
        path = folder / split / f"{kind}-{seed}.z8"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, kind, split, seed)
        yield str(path.relative_to(folder))


def _write(path: Path, kind: str, split: str, seed: int) -> None:
    textworld = library()
    from textworld.challenges import CHALLENGES

    challenge, settings = KINDS[kind]
    options = textworld.GameOptions()
    options.seeds = seed
    if (
        kind == "cooking"
    ):  # foods and ways of preparing them that train does not have, as in the competition
        settings = settings | {"recipe_seed": seed, "split": {"dev": "valid"}.get(split, split)}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as working:
        options.path = str(Path(working) / path.name)
        game = CHALLENGES[challenge][1](dict(settings), options)
        textworld.generator.compile_game(game, options)
        for suffix in (".json", ".z8"):  # the game last: it vouches for both
            os.replace(Path(options.path).with_suffix(suffix), path.with_suffix(suffix))
