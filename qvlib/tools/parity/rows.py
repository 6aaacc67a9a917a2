"""How many recorded cases of a file come out the same, and which do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.environments.datafiles import lines


@dataclass(frozen=True, slots=True)
class Row:
    """A file of records: how many come out the same, and which do not.

    first_difference: where the first does not. differing: by id or number.
    """

    file: str
    matching: int
    total: int
    first_difference: str = ""
    differing: tuple[str, ...] = ()


def recorded(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Name -> file of the recorded cases that lie in a folder.

    Raises:
        QvlibError: none does.
    """
    names = list(names)
    files = {name: path for name in names for path in sorted(folder.glob(f"{name}.jsonl*"))[:1]}
    if not files:
        raise QvlibError(
            f"{folder}: none of {', '.join(f'{n}.jsonl.gz' for n in names)}; parity needs recorded "
            "cases of the original beside the data files"
        )
    return files


def row(path: Path, differs: Callable[[dict[str, Any]], str | None]) -> Row:
    """Compare every record of a file; ``differs`` says how one differs, None if it does not.

    Raises:
        QvlibError: the file holds no records, or is cut off.
    """
    total = 0
    first, differing = "", []
    for _, record in lines(path):
        total += 1
        try:
            difference = differs(record)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            difference = f"{type(error).__name__}: {error}"
        if difference is not None:
            first = first or f"record {total}: {difference}"
            differing.append(str(record.get("id", total)))
    if not total:
        raise QvlibError(f"{path}: no records in it; fetch the file again")
    return Row(path.name, total - len(differing), total, first, tuple(differing))


def compare(**pairs: tuple[Any, Any]) -> str | None:
    """The first of the named (ours, theirs) that are not equal, in words; None if all are."""
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            return f"{name}: {ours!r:.200} instead of {theirs!r:.200}"
    return None


def format_rows(rows: Iterable[Row]) -> str:
    """A plain table, one file a line; below a file that differs, the records that do."""
    rows = list(rows)
    width = max(len(row.file) for row in rows)
    out = []
    for row in rows:
        difference = row.first_difference or "same"
        out.append(f"{row.file:{width}}  {row.matching:>6} of {row.total:<6}  {difference}")
        if row.differing:
            out.append(f"{'':{width}}  differing: {' '.join(row.differing)}")
    return "\n".join(out)
