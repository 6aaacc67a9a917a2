"""Where relative folders of the parameters lie: in the project.

Wherever a notebook was opened from.
"""

from __future__ import annotations

from pathlib import Path


def project_root() -> Path:
    """The nearest folder at or above the current one with pyproject.toml and notebooks/.

    Else the current one.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return here


def resolve(path: str | Path) -> Path:
    """An absolute path; a relative one is meant from the project root."""
    return project_root() / Path(path).expanduser()


def display_path(path: str | Path) -> str:
    """A path as messages show it.

    Relative to the current folder or the project root where it is below one.
    """
    path = Path(path)
    for base in (Path.cwd(), project_root()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
