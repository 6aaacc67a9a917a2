"""Game files: found in a folder, dealt to splits.

A game is a ``.z8`` file and the ``.json`` that TextWorld writes beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.types import Task
from qvlib.environments.datafiles import opened, parsed

SPLITS = ("train", "dev", "test")
FOLDERS = {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}
_STAMPS = ((0x12, 0x18), (0x1C, 0x1E))  # bytes of a .z8: the day of compiling, and the checksum


def library() -> ModuleType:
    """The package textworld.

    Raises:
        QvlibError: it is not installed.
    """
    try:
        import textworld
    except ImportError:
        raise QvlibError(
            "environment textworld: the package is not installed; pip install 'qvlib[textworld]' "
            "(Linux and macOS)"
        ) from None
    return textworld


def find(
    folder: Path, dev_share: float, test_share: float, in_order: bool = False
) -> dict[str, list[str]]:
    """Split -> paths of games below ``folder``; hidden folders, of games under way, do not count.

    The folders train, dev (or valid) and test are the splits where there are any; else the games
    are dealt out by a hash of their names. That is also their order in a split: by their names,
    those that are searched might be of another kind than those that are played. in_order: by their
    names, as for games that are all of a kind.

    Raises:
        QvlibError: no games, or one without its .json.
    """
    files = (path.relative_to(folder) for path in folder.rglob("*.z8"))
    paths = sorted(
        str(path) for path in files if not any(part.startswith(".") for part in path.parts)
    )
    if not paths:
        raise QvlibError(
            f"data_dir {str(folder)!r} holds no TextWorld games (*.z8, with *.json beside); "
            "make some with tw-make"
        )
    for path in paths:
        if not (folder / path).with_suffix(".json").exists():
            raise QvlibError(
                f"game {path!r} has no .json beside it, which tells its objective and commands; "
                "copy it too, or make the game again with tw-make"
            )
    drawn = sorted(paths, key=lambda path: hashlib.blake2b(Path(path).name.encode()).digest())
    named = {
        split: [p for p in (paths if in_order else drawn) if Path(p).parts[0] in names]
        for split, names in FOLDERS.items()
    }
    if any(named.values()):
        return named
    test, dev = round(test_share * len(paths)), round(dev_share * len(paths))
    return {"train": drawn[test + dev :], "dev": drawn[test : test + dev], "test": drawn[:test]}


def make_task(folder: Path, path: str) -> Task:
    """The task of a game: its objective is the instruction.

    Raises:
        QvlibError: its .json is none of TextWorld's.
    """
    told = (folder / path).with_suffix(".json")
    with opened(told) as text:
        game = parsed(text.read(), told, "the file")
    objective = game.get("objective") if isinstance(game, dict) else None
    if not isinstance(objective, str):
        raise QvlibError(
            f"game {path!r}: its .json is not one of TextWorld's; make the game again with tw-make"
        )
    name = str(Path(path).with_suffix(""))
    return Task(f"textworld-{name}", " ".join(objective.split()) or "Explore and win.", name, path)


def content_hash(path: Path) -> str:
    """sha256 of a game and its .json; the day on which it was compiled does not matter."""
    story = bytearray(path.read_bytes())
    for start, end in _STAMPS:
        story[start:end] = bytes(end - start)
    return hashlib.sha256(bytes(story) + path.with_suffix(".json").read_bytes()).hexdigest()


def walkthrough(game: Any) -> tuple[str, ...]:
    """Commands that win a game from its beginning, () if it does not tell."""
    told: Mapping[str, Any] = game.metadata
    return tuple(told.get("walkthrough") or ())
