"""Worlds that meet the ``Environment`` protocol, and the one place that knows them all by name."""

from __future__ import annotations

from pathlib import Path

from ..params import Params
from ..paths import resolve
from ..types import Agent, Environment
from . import own


def make(params: Params, embedded: Path) -> Environment:
    """The environment of a run; ``embedded`` is the folder of generated data, used where ``data_dir`` is empty.

    Raises:
        QvlibError: a package, module or file that it needs is missing or wrong.
    """
    folder = resolve(params.data_dir) if params.data_dir else embedded
    common = {"max_steps": params.max_steps, "timeout_value": params.timeout_value, "dev_share": params.dev_share,
              "test_share": params.test_share}
    if ":" in params.environment:
        return own.make(params)
    if params.environment == "hotpotqa":
        from . import hotpotqa

        return hotpotqa.build(folder, **common)
    if params.environment == "textworld":
        from . import textworld

        return textworld.build(folder, **common)
    if params.environment == "scienceworld":
        from . import scienceworld

        return scienceworld.build(folder, max_steps=params.max_steps, timeout_value=params.timeout_value)
    from . import webshop

    nouns = params.title_nouns if params.title_nouns in ("auto", "spacy") else resolve(params.title_nouns)
    return webshop.build(folder, goals=params.goals, title_nouns=nouns, repair=params.repair_rules, **common)


def make_data(params: Params, folder: Path) -> None:
    """Write the embedded data of the environment into ``folder``; one of your own brings its data itself."""
    if params.environment == "hotpotqa":
        from .hotpotqa.generator import write_encyclopaedia

        write_encyclopaedia(folder, params.catalogue_products, params.catalogue_seed)
    elif params.environment == "textworld":
        from .textworld.generator import write_games

        write_games(params, folder)
    elif params.environment == "scienceworld":
        from .scienceworld.experiments import write_experiments

        write_experiments(params, folder)
    elif params.environment == "webshop":
        from .webshop.generator import write_catalogue

        write_catalogue(folder, params.catalogue_products, params.catalogue_seed)


def data_hashes(params: Params, environment: Environment) -> dict[str, str]:
    """File name -> sha256 of all that the environment was made of, for manifests."""
    if ":" in params.environment:
        return own.data_hashes(params, environment)
    return environment.data_hashes()


def instructions(params: Params) -> str:
    """What a model that was not trained on the environment is told of it."""
    if params.environment == "hotpotqa":
        from . import hotpotqa

        return hotpotqa.INSTRUCTIONS
    if params.environment == "webshop":
        from . import webshop

        return webshop.INSTRUCTIONS
    return "You act in a world that is told in words. The task says what to reach. Give one action at a time."


def demonstrator(params: Params, environment: Environment) -> Agent:
    """The scripted agent that small agents are cloned from.

    Raises:
        QvlibError: an environment of your own has none.
    """
    if ":" in params.environment:
        return own.demonstrator(params, environment)
    if params.environment == "hotpotqa":
        from .hotpotqa.reader import Reader

        return Reader(environment)
    if params.environment == "textworld":
        from .textworld.player import Player

        return Player(environment)
    if params.environment == "scienceworld":
        from .scienceworld.scientist import Scientist

        return Scientist()
    from .webshop.shopper import Shopper

    return Shopper(environment)
