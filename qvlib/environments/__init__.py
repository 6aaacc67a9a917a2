"""Worlds that meet the ``Environment`` protocol, and the one place that knows them all by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qvlib.base.paths import resolve
from qvlib.core.types import Agent, Environment, Task
from qvlib.environments import own, tours
from qvlib.environments.tours import Tour
from qvlib.environments.words import Words, words
from qvlib.pipeline.params import Params

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Tour",
    "Words",
    "data_hashes",
    "demonstrator",
    "failures",
    "has_demonstrator",
    "instructions",
    "make",
    "make_data",
    "tour",
    "words",
]


def make(params: Params, embedded: Path) -> Environment:
    """The environment of a run; ``embedded`` is the folder of generated data, used where ``data_dir`` is empty.

    Raises:
        QvlibError: a package, module or file that it needs is missing or wrong.
    """
    folder = resolve(params.data_dir) if params.data_dir else embedded
    common = {
        "max_steps": params.max_steps,
        "timeout_value": params.timeout_value,
        "dev_share": params.dev_share,
        "test_share": params.test_share,
    }
    if ":" in params.environment:
        return own.make(params)
    if params.environment == "hotpotqa":
        from qvlib.environments import hotpotqa

        return hotpotqa.build(folder, **common)
    if params.environment == "textworld":
        from qvlib.environments import textworld

        return textworld.build(
            folder, **common, in_order=not params.data_dir
        )  # generated ones are of a kind
    if params.environment == "scienceworld":
        from qvlib.environments import scienceworld

        return scienceworld.build(
            folder, max_steps=params.max_steps, timeout_value=params.timeout_value
        )
    from qvlib.environments import webshop

    nouns = (
        params.title_nouns
        if params.title_nouns in ("auto", "spacy")
        else resolve(params.title_nouns)
    )
    return webshop.build(
        folder, goals=params.goals, title_nouns=nouns, repair=params.repair_rules, **common
    )


def make_data(params: Params, folder: Path) -> None:
    """Write the embedded data of the environment into ``folder``; one of your own brings its data itself."""
    if params.environment == "hotpotqa":
        from qvlib.environments.hotpotqa.generator import write_encyclopaedia

        write_encyclopaedia(folder, params.catalogue_products, params.catalogue_seed)
    elif params.environment == "textworld":
        from qvlib.environments.textworld.generator import write_games

        write_games(params, folder)
    elif params.environment == "scienceworld":
        from qvlib.environments.scienceworld.experiments import write_experiments

        write_experiments(params, folder)
    elif params.environment == "webshop":
        from qvlib.environments.webshop.generator import write_catalogue

        write_catalogue(folder, params.catalogue_products, params.catalogue_seed)


def data_hashes(params: Params, environment: Environment) -> dict[str, str]:
    """File name -> sha256 of all that the environment was made of, for manifests."""
    if ":" in params.environment:
        return own.data_hashes(params, environment)
    return environment.data_hashes()


def instructions(params: Params) -> str:
    """What a model that was not trained on the environment is told of it."""
    if params.environment == "hotpotqa":
        from qvlib.environments import hotpotqa

        return hotpotqa.INSTRUCTIONS
    if params.environment == "textworld":
        from qvlib.environments import textworld

        return textworld.INSTRUCTIONS
    if params.environment == "scienceworld":
        from qvlib.environments import scienceworld

        return scienceworld.INSTRUCTIONS
    if params.environment == "webshop":
        from qvlib.environments import webshop

        return webshop.INSTRUCTIONS
    return "You act in a world that is told in words. The task says what to reach. Give one action at a time."


def demonstrator(params: Params, environment: Environment) -> Agent:
    """The scripted agent that small agents are cloned from, which errs as often as ``demonstrator_errors`` says.

    Raises:
        QvlibError: an environment of your own has none.
    """
    errors = params.demonstrator_errors
    if ":" in params.environment:
        return own.demonstrator(params, environment)
    if params.environment == "hotpotqa":
        from qvlib.environments.hotpotqa.reader import Habits, Reader

        return Reader(environment, Habits().scaled(errors))
    if params.environment == "textworld":
        from qvlib.environments.textworld.player import Player

        return Player(environment, min(1.0, errors * Player.error))
    if params.environment == "scienceworld":
        from qvlib.environments.scienceworld.scientist import Scientist

        return Scientist(min(1.0, errors * Scientist.error))
    from qvlib.environments.webshop.shopper import Habits, Shopper

    return Shopper(environment, Habits().scaled(errors))


def has_demonstrator(params: Params, environment: Environment) -> bool:
    """Whether ``demonstrator`` gives one: always but for an environment of your own that has none."""
    return ":" not in params.environment or hasattr(environment, "demonstrator")


def tour(params: Params, environment: Environment, task: Task) -> Tour:
    """A first look at a task: its goal, a sensible walk, its reward counted again; a world of your own gets a general one."""
    if params.environment == "webshop":
        from qvlib.environments.webshop.tour import tour as look
    elif params.environment == "hotpotqa":
        from qvlib.environments.hotpotqa.tour import tour as look
    elif params.environment == "textworld":
        from qvlib.environments.textworld.tour import tour as look
    elif params.environment == "scienceworld":
        from qvlib.environments.scienceworld.tour import tour as look
    else:
        known = has_demonstrator(params, environment)
        return tours.general(
            environment, task, own.demonstrator(params, environment) if known else None
        )
    return look(environment, task)


def failures(params: Params) -> tuple[Callable[..., pd.DataFrame], str] | None:
    """Where test episodes fail: ``table(environment, records)`` and what its columns mean; None in a world that brings none.

    The table has a row an arm; records have ``arm``, ``task`` and ``actions`` of each episode.
    """
    if params.environment == "hotpotqa":
        from qvlib.environments.hotpotqa.failures import EXPLAINED, table

        return table, EXPLAINED
    return None
