"""A kind of environment, a ``World``: all that is known of it before one is built, in one record.

Each folder beside this file exports one as ``WORLD``, and ``qvlib.environments`` lists them by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.base.settings import Settings, setting
from qvlib.core import preferences
from qvlib.core.types import Agent, Environment, State, Task
from qvlib.environments import tours
from qvlib.environments.tours import Tour

if TYPE_CHECKING:
    import pandas as pd


def step_limit(default: int, meaning: str) -> Any:
    """``max_steps`` of a world."""
    return setting(default, meaning, ge=1)


def cut_off_value(default: float, source: str = "") -> Any:
    """``timeout_value`` of a world; source: where the default is from, in brackets."""
    return setting(
        default,
        f"value of a state that is cut off at max_steps{source}",
        decides=("trees", "search"),
        ge=-1,
        le=0,
    )


def dev_part(groups: str) -> Any:
    """``dev_share`` of a world; groups: what splits never cut through."""
    return setting(0.1, f"share of the {groups} in the dev split", gt=0, lt=0.5)


def test_part(groups: str) -> Any:
    """``test_share``, as ``dev_part``."""
    return setting(0.3, f"share of the {groups} in the test split", gt=0, lt=0.8)


class WorldSettings(Settings):
    """The settings that every world has; a world's own class adds its own and sets its defaults."""

    stage: ClassVar[str] = "data"

    environment: str = setting(
        ..., "the environment by name, or module:WORLD or module:factory of your own"
    )
    data_dir: str = setting("", "folder of the data files; empty = embedded or generated data")
    max_steps: int = step_limit(10, "actions after which an episode is cut off")
    timeout_value: float = cut_off_value(-0.5)
    dev_share: float = dev_part("task groups")
    test_share: float = test_part("task groups")


@dataclass(frozen=True, slots=True)
class Names:
    """What a world calls things, for sentences, tables and errors.

    groups: what splits never cut through and intervals resample, in the plural.
    more: what to do for more tasks.
    kinds: what the kinds of preference pairs are about, Markdown.
    """

    groups: str = "groups"
    more: str = "let the environment give more"
    kinds: str = (
        "The kind of an action is what stands before its bracket, or its first word. Rows of one "
        "kind are about what to do it with, mixed rows about when to do what."
    )


class MakeData(Protocol):
    """Writes a world's embedded data into a folder."""

    def __call__(self, settings: Any, folder: Path, processes: int = 0) -> None:
        """``processes``: on so many processes where that helps; 0 = one per core."""


def verb(state: State, action: str) -> str:
    """The kind of an action where a world names none: its verb."""
    return preferences.kind(action)


def nowhere(state: State) -> str:
    """The place of a state where a world names none: ""."""
    return ""


@dataclass(frozen=True, eq=False)
class World:
    """All that is known of a kind of environment.

    settings: the class of its settings, with its defaults.
    build: (settings, folder of the data) -> environment; ``make_environment`` finds the folder.
    instructions: what a model that was not trained on the environment is told of it.
    make_data: writes the embedded data; None where there are none.
    demonstrator: (environment, errors) -> the scripted agent that small agents are cloned from;
        errors: how often it errs, relative to its habits. None: the environment's own
        ``demonstrator()``, where it has one.
    tour: a first look at a task; None: a general one.
    failures: (``table(environment, records)``, what its columns mean): where test episodes fail.
        The table has a row an arm; records have ``arm``, ``task`` and ``actions`` of each episode.
    kind: (state, action) -> the world's own name for what sort of action it is there. It only
        reads: nothing is stepped, and refused actions are ``other`` where a world names kinds.
    place: state -> the sort of page it is on. Tables by kind of action go by (place, kind).
    script: environment -> a fixed script that reads hardly anything, the least that an agent must
        beat; None: there is none.
    parts: (environment, task, actions of an episode) -> part of the reward -> share of it that was
        reached, in [0, 1], found by replaying the actions; a part that the task does not have is
        left out. None: the reward has no parts.
    solution: (environment, task) -> what solves it, in a few words: of training tasks alone, for
        estimators that may read it in training. None: it is not told.
    sources: file name -> sha256 of the code of a world of your own.
    """

    name: str
    settings: type[WorldSettings]
    build: Callable[[Any, Path], Environment]
    instructions: str = (
        "You act in a world that is told in words. The task says what to reach. "
        "Give one action at a time."
    )
    names: Names = Names()
    make_data: MakeData | None = None
    demonstrator: Callable[[Any, float], Agent] | None = None
    tour: Callable[[Any, Task], Tour] | None = None
    failures: tuple[Callable[..., pd.DataFrame], str] | None = None
    kind: Callable[[State, str], str] = verb
    place: Callable[[State], str] = nowhere
    script: Callable[[Any], Agent] | None = None
    parts: Callable[[Any, Task, Sequence[str]], Mapping[str, float]] | None = None
    solution: Callable[[Any, Task], str] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def common(settings: WorldSettings) -> dict[str, Any]:
    """What ``build`` of a world with shares takes of the settings that all worlds have."""
    names = ("max_steps", "timeout_value", "dev_share", "test_share")
    return {name: getattr(settings, name) for name in names}


def make_environment(world: World, settings: WorldSettings, embedded: Path) -> Environment:
    """The environment on ``data_dir``, or on ``embedded``, the folder of its embedded data.

    Raises:
        QvlibError: a package, module or file that it needs is missing or wrong.
    """
    return world.build(settings, resolve(settings.data_dir) if settings.data_dir else embedded)


def data_hashes(world: World, environment: Environment) -> dict[str, str]:
    """File name -> sha256 of all that the environment was made of, for manifests."""
    told = environment.data_hashes() if hasattr(environment, "data_hashes") else {}
    return {**world.sources, **told}


def names_of(world: World, settings: WorldSettings) -> Names:
    """The names of a world; where its data are not the embedded ones, more come from data_dir."""
    names = world.names
    if settings.data_dir and world.make_data is not None:
        return Names(names.groups, "put more into data_dir", names.kinds)
    return names


def has_demonstrator(world: World, environment: Environment) -> bool:
    """Whether ``demonstrator`` gives one."""
    return world.demonstrator is not None or hasattr(environment, "demonstrator")


def demonstrator(world: World, environment: Environment, errors: float = 1.0) -> Agent:
    """The scripted agent that small agents are cloned from; ``errors``: relative to its habits.

    Raises:
        QvlibError: there is none, or it cannot err more or less.
    """
    if world.demonstrator is not None:
        return world.demonstrator(environment, errors)
    if not hasattr(environment, "demonstrator"):
        raise QvlibError(
            f"environment {world.name!r} has no demonstrator() to clone a small agent from; "
            "write one, or set agent to the folder or hub name of a model"
        )
    if errors != 1.0:
        raise QvlibError(
            f"demonstrator_errors: how often the demonstrator() of {world.name!r} errs is for "
            "itself to say; leave it at 1.0"
        )
    return environment.demonstrator()


def tour_of(world: World, environment: Environment, task: Task) -> Tour:
    """A first look at a task: its goal, a sensible walk, its reward counted again."""
    if world.tour is not None:
        return world.tour(environment, task)
    known = has_demonstrator(world, environment)
    return tours.general(environment, task, demonstrator(world, environment) if known else None)
