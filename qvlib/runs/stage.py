"""A stage's folder on disk, ``runs_dir/<stage>-<digest>``, named by what decides its outcome.

``manifest.json`` says what made it. While a stage runs, each finished task is one line of
``<name>.jsonl``; whatever stops the process, the next one goes on after the last whole line.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qvlib.base.errors import Hindrance, QvlibError, of_the_machine
from qvlib.base.files import (
    Line,
    append_line,
    as_json,
    broken_line,
    mend_tail,
    open_own,
    read_lines,
    remove,
    write_atomic,
    write_json,
)
from qvlib.base.paths import display_path, resolve
from qvlib.runs import checksums, parquet
from qvlib.runs.manifests import ill_typed, is_number
from qvlib.runs.provenance import code_hash, now, peak_memory, provenance, tell_other_code

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Stage",
    "is_complete",
    "notebook_of",
    "open_stage",
    "read_stage",
    "seconds_beside",
    "seconds_of",
    "seconds_spent",
    "stage_path",
    "write_atomic",
    "write_json",
]

MADE_BY = {
    # stage: (what it is called, the notebook that makes it); episodes/<arm> under "episodes"
    "data": ("the data are not prepared", "01_agent"),
    "agent": ("the agent is not trained", "01_agent"),
    "other_agent": ("the second agent is not trained", "01_agent"),
    "trees": ("trees are not collected", "02_collect"),
    "pairs": ("preference pairs are not built", "03_preferences"),
    "q_model": ("the Q model is not trained", "04_train_q"),
    "control": ("the control is not trained", "04_train_q"),
    "critics": ("the critics of a round are not trained", "02_collect"),
    "rft": ("the agent is not fine-tuned on its best episodes", "05_evaluate"),
    "eto": ("the agent is not tuned on its best against its worst episodes", "05_evaluate"),
    "episodes": ("episodes are not played", "05_evaluate"),
    "dev": ("the arm is not tried on dev tasks", "12_baselines"),
    "rules": ("the scoring rules are not tried", "06_ablations"),
    "trial": ("the cell of the grid is not tried", "06_ablations"),
    "scored": ("the pairs of the test tasks are not scored", "05_evaluate"),
    "followed": ("what the agent sampled is not scored by the estimator", "08_estimators"),
}


def notebook_of(stage: str) -> str:
    """The notebook that makes a stage."""
    return MADE_BY[stage.partition("/")[0]][1]


class Recipe(Protocol):
    """The parameters of a run, as far as a stage's folder needs them."""

    run: Any  # runs_dir, device

    def digest(self, stage: str) -> str:
        """Eight hex digits of all that decides the stage's outcome."""

    def deciding(self, stage: str) -> dict[str, dict[str, Any]]:
        """All parameters that decide it, by the stage they belong to."""

    def flat(self) -> dict[str, Any]:
        """Every parameter by its name."""

    def every_stage(self) -> Sequence[tuple[Recipe, str]]:
        """The stages that a chain with these parameters has, and the parameters of each."""

    def each_seed(self) -> Sequence[Recipe]:
        """The parameters of each chain."""


@dataclass
class Stage:
    """A stage's folder. Only ``open_stage`` gives one that can be written."""

    path: Path
    manifest: dict[str, Any]
    writable: bool = False
    _opened: float = 0.0
    _mended: set[str] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether the stage was finished."""
        return self.manifest["status"] == "complete"

    @property
    def facts(self) -> dict[str, Any]:
        """What ``finish`` was told."""
        return self.manifest["facts"]

    def records(self, name: str) -> list[dict[str, Any]]:
        """The finished records in order of completion; a line torn by a kill is left out.

        Raises:
            QvlibError: a line is not as it was written.
        """
        return list(self.each(name))

    def each(
        self, name: str, sort: Sequence[str] = (), needs: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """``records`` one at a time, so that few are held at once.

        sort: fields to sort by. needs: fields that each record has, beside ``task``.
        """
        path = self.path / f"{name}.jsonl"
        lines = (_checked(path, line, ("task", *sort, *needs)) for line in read_lines(path))
        yield from _sorted(path, lines, sort) if sort else (line.record for line in lines)

    def done(self, name: str, key: str | Sequence[str] = "task") -> set[Any]:
        """The ids that are finished; tuples of them where ``key`` names several fields.

        Raises:
            QvlibError: a line is not as it was written.
        """
        keys = (key,) if isinstance(key, str) else tuple(key)
        ids = (tuple(record[k] for k in keys) for record in self.each(name, needs=keys))
        return {one[0] if isinstance(key, str) else one for one in ids}

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep a finished record; it is on the disk when the call returns."""
        self._must_be_writable()
        path = self.path / f"{name}.jsonl"
        if name not in self._mended:
            mend_tail(path)
            self._mended.add(name)
        append_line(path, record)

    def to_parquet(self, name: str, sort: str | Sequence[str], explode: str | None = None) -> Path:
        """Write ``<name>.parquet`` from the records.

        Sorted, so that the order of completion leaves no trace.

        Args:
            sort: the column or columns to sort by; with ``explode`` the first is the record's.
            explode: a field that holds a list of mappings: each becomes a row, with the
                record's scalar fields repeated.
        """
        self._must_be_writable()
        keys = [sort] if isinstance(sort, str) else list(sort)
        of_records = keys[:1] if explode else keys
        path = self.path / f"{name}.parquet"
        return parquet.write(path, lambda: self.each(name, of_records), keys, explode)

    def table(self, name: str) -> pd.DataFrame:
        """The table that ``to_parquet`` wrote.

        Raises:
            QvlibError: it is gone, or no whole Parquet file.
        """
        return parquet.read(self.path / f"{name}.parquet")

    def took(self, part: str, seconds: float) -> None:
        """Keep how long a part took by itself: the stage's own time tells of all side by side."""
        self._must_be_writable()
        self.manifest.setdefault("part_seconds", {})[part] = round(seconds, 3)
        write_json(self.path / "manifest.json", self.manifest)

    def finish(self, **facts: Any) -> None:
        """Mark the stage complete; the manifest keeps facts about it and checksums of its files."""
        self._must_be_writable()
        self._close_session()
        self.manifest.update(status="complete", finished=now(), facts={**self.facts, **facts})
        self.manifest["files"] = checksums.checksums(self.path)
        self.manifest = json.loads(as_json(self.manifest))  # as it is read again
        self.manifest["checksum"] = checksums.checksum_of(self.manifest)
        write_json(self.path / "manifest.json", self.manifest)

    def _close_session(self) -> None:
        """Count this session's time, and keep the most memory that was in use."""
        if self.manifest.pop("session_started", None) is not None:
            self.manifest["seconds"] = round(
                self.manifest["seconds"] + time.monotonic() - self._opened, 3
            )
            before, now_used = (
                self.manifest.get("peak_memory_gib", {}),
                peak_memory(self.manifest["machine"]["device"]),
            )
            self.manifest["peak_memory_gib"] = {
                k: max(v, before.get(k, 0.0)) for k, v in now_used.items()
            }

    def _must_be_writable(self) -> None:
        if not self.writable:
            raise RuntimeError(
                f"{self.path.name} is not open for writing: use `with open_stage(...)`"
            )


def stage_path(params: Recipe, stage: str) -> Path:
    """The folder of a stage."""
    folder = f"{stage.replace('/', '-')}-{params.digest(stage)}"
    return resolve(params.run.runs_dir) / folder


@contextmanager
def open_stage(params: Recipe, stage: str) -> Iterator[Stage]:
    """Open a stage's folder for writing, alone, creating or resuming it; a finished one to read.

    Leaving early, by an error or Ctrl-C, keeps the stage resumable; so does ``kill -9``.

    Raises:
        QvlibError: another process works in the folder, or it was made with other parameters, or
            cannot be read or written; a finished one was changed; memory or disk were used up.
    """
    path = stage_path(params, stage)
    finished = _finished(path, params, stage)
    if finished is not None:  # nothing is written: no lock
        yield finished
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QvlibError(
            f"{display_path(path)} cannot be made: {error.strerror}; "
            "set runs_dir to a writable folder"
        ) from None
    with _locked(path):
        finished = _finished(path, params, stage)
        if finished is not None:  # meanwhile, by another process
            yield finished
            return
        manifest = _verified(path, params, stage) or _new_manifest(params, stage)
        opened = Stage(path, manifest, writable=True, _opened=time.monotonic())
        _remove_half_written(path)
        _start_session(opened, params)
        try:
            yield opened
        except BaseException as error:
            with suppress(QvlibError):  # a full disk must not hide what went wrong first
                _end_session(opened)
            told = of_the_machine(error)
            if told is None:
                raise
            raise QvlibError(f"{display_path(path)}: {told}") from None
        else:
            _end_session(opened)
        finally:
            opened.writable = False


def read_stage(params: Recipe, stage: str) -> Stage:
    """A complete stage, to read from.

    Raises:
        QvlibError: it is not there or not complete (the message names the notebook that makes it),
            or a file was changed since.
    """
    path = stage_path(params, stage)
    finished = _finished(path, params, stage)
    if finished is None:
        missing, notebook = MADE_BY[stage.partition("/")[0]]
        raise QvlibError(
            f"{missing} yet: run notebooks/{notebook}.ipynb with the same parameters "
            f"({display_path(path)})"
        )
    tell_other_code(display_path(path), finished.manifest)
    return finished


def _finished(path: Path, params: Recipe, stage: str) -> Stage | None:
    """A stage that was finished, to read from; its files are as they were then."""
    manifest = _verified(path, params, stage)
    if manifest is None or manifest["status"] != "complete":
        return None
    checksums.check(path, manifest)
    return Stage(path, manifest)


def is_complete(params: Recipe, stage: str) -> bool:
    """Whether a stage is there and finished."""
    try:
        return read_stage(params, stage).complete
    except QvlibError:
        return False


def seconds_spent(params: Recipe, notebook: str) -> float:
    """Seconds that the stages of a notebook have taken so far, in all sessions.

    Stages made side by side count once.
    """
    return seconds_of(
        (made_with, stage)
        for chain in params.each_seed()
        for made_with, stage in chain.every_stage()
        if notebook_of(stage) == notebook
    )


def seconds_beside(params: Recipe, stages: Iterable[tuple[Recipe, str]]) -> float:
    """Seconds that stages of other parameters have taken so far; those that a run itself has, and
    those that are named twice, do not count.
    """
    own = {_key(*each) for chain in params.each_seed() for each in chain.every_stage()}
    others = {_key(*each): each for each in stages}
    return seconds_of(each for key, each in others.items() if key not in own)


def _key(params: Recipe, stage: str) -> tuple[str, str]:
    return stage, params.digest(stage)


def seconds_of(stages: Iterable[tuple[Recipe, str]]) -> float:
    """Seconds that stages have taken so far, in all sessions; those side by side count once."""
    spans = []
    for params, stage in stages:
        path = stage_path(params, stage)
        manifest = _verified(path, params, stage)
        if manifest is not None:
            finished, seconds = manifest["finished"] or now(), _seconds(Stage(path, manifest))
            spans.append((manifest["started"], finished, seconds))
    total, until, longest = 0.0, "", 0.0
    for started, finished, seconds in sorted(spans):
        if started >= until:
            total, longest = total + longest, 0.0
        until, longest = max(until, finished), max(longest, seconds)
    return total + longest


def _seconds(stage: Stage) -> float:
    """Of all sessions; one that was killed lasted at least until its last write."""
    seconds = stage.manifest["seconds"]
    if "session_started" in stage.manifest:
        written = max(f.stat().st_mtime for f in stage.path.iterdir() if f.name != ".lock")
        seconds += max(0.0, written - stage.manifest["session_started"])
    return round(seconds, 3)


def _new_manifest(params: Recipe, stage: str) -> dict[str, Any]:
    return {
        "stage": stage,
        "digest": params.digest(stage),
        "status": "running",
        "started": now(),
        "finished": None,
        "seconds": 0.0,
        "sessions": 0,
        "facts": {},
        "data_hashes": None,
        "decided_by": params.deciding(stage),
        "parameters": params.flat(),
    }


def _start_session(stage: Stage, params: Recipe) -> None:
    manifest = stage.manifest
    manifest["seconds"] = _seconds(stage)
    made_by = provenance(params.flat()) | {"code": code_hash()}
    if manifest["sessions"] and any(
        manifest.get(key) != made_by[key] for key in ("git", "packages")
    ):
        # Other code made a part of it: that is kept too.
        manifest.setdefault("earlier", []).append(
            {key: manifest.get(key) for key in ("git", "packages")}
        )
    manifest.update(session_started=time.time(), sessions=manifest["sessions"] + 1, **made_by)
    write_json(stage.path / "manifest.json", manifest)


def _end_session(stage: Stage) -> None:
    if not stage.complete:
        stage._close_session()
        write_json(stage.path / "manifest.json", stage.manifest)


def _verified(path: Path, params: Recipe, stage: str) -> dict[str, Any] | None:
    """The folder's manifest, if it has one and it fits the parameters."""
    file = path / "manifest.json"
    remedy = f"delete the folder {display_path(path)} to make the stage anew"
    try:
        manifest = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise QvlibError(
            f"{display_path(file)} is unreadable ({error.__class__.__name__}); "
            f"restore it, or {remedy}"
        ) from None
    wrong = ill_typed(manifest)
    if wrong:
        raise QvlibError(
            f"{display_path(file)} is not the manifest of a stage ({wrong}); restore it, or "
            f"{remedy}"
        )
    difference = _first_difference(
        manifest["decided_by"], json.loads(json.dumps(params.deciding(stage)))
    )
    if difference:
        raise QvlibError(
            f"{display_path(file)} was made with {difference}, "
            f"so the folder was copied or edited; {remedy}"
        )
    return manifest


def _first_difference(kept: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """``parameter = value where the parameters say other``, for the first that differs."""
    for stage in dict.fromkeys((*expected, *kept)):
        ours, theirs = expected.get(stage, {}), kept.get(stage, {})
        for name in dict.fromkeys((*ours, *theirs)):
            if name not in theirs or name not in ours or theirs[name] != ours[name]:
                was, is_now = (repr(x[name]) if name in x else "nothing" for x in (theirs, ours))
                return f"{name} = {was} where the parameters now say {is_now}"
    return None


def _checked(path: Path, line: Line, needs: Sequence[str]) -> Line:
    """A line whose record has these fields, and a reward in [0, 1] where it has one."""
    lacks = next((key for key in needs if key not in line.record), None)
    if lacks is not None:
        raise broken_line(path, line.number, f"has no {lacks!r}")
    reward = line.record.get("reward", 0)
    if reward is not None and not (is_number(reward) and 0 <= reward <= 1):
        raise broken_line(path, line.number, f"has reward {reward!r:.40}, which is none in [0, 1]")
    return line


def _sorted(path: Path, lines: Iterable[Line], keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Records sorted by fields: only those and their places in the file are held."""
    places = [(tuple(line.record[key] for key in keys), line.offset) for line in lines]
    if not places:
        return
    with open(path, "rb") as file:
        for _, offset in sorted(places):
            file.seek(offset)
            yield json.loads(file.readline())


def _remove_half_written(path: Path) -> None:
    """Files and folders that a kill left half written; whoever holds the lock made them."""
    for left in path.glob(".*.tmp"):
        with suppress(OSError):
            remove(left)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a folder's lock. The system releases it with the process, however that ends."""
    try:
        descriptor = open_own(path / ".lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise QvlibError(
            f"{display_path(path / '.lock')} cannot be written: {error.strerror}; "
            "remove it, or set runs_dir to a writable folder"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise QvlibError(
                    f"{display_path(path)} cannot be locked: {error.strerror}; "
                    "set runs_dir to a folder on a local disk"
                ) from None
            holder = os.pread(descriptor, 20, 0).decode() or "unknown"
            raise Hindrance(
                f"{display_path(path)} is in use by process {holder}; wait for it or stop it, "
                "then run again"
            ) from None
        with suppress(OSError):  # a full disk only costs the message its number
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
