"""Worlds that meet the ``Environment`` protocol, and the one place that knows them all by name."""

from __future__ import annotations

from pathlib import Path

from ..params import Params
from ..paths import resolve
from ..types import Agent, Environment


def make(params: Params, embedded: Path) -> Environment:
    """The environment of a run; ``embedded`` is the folder of generated data, used where ``data_dir`` is empty."""
    folder = resolve(params.data_dir) if params.data_dir else embedded
    common = {"max_steps": params.max_steps, "timeout_value": params.timeout_value, "dev_share": params.dev_share,
              "test_share": params.test_share}
    if params.environment == "hotpotqa":
        from . import hotpotqa

        return hotpotqa.build(folder, **common)
    from . import webshop

    nouns = params.title_nouns if params.title_nouns in ("auto", "spacy") else resolve(params.title_nouns)
    return webshop.build(folder, goals=params.goals, title_nouns=nouns, repair=params.repair_rules, **common)


def make_data(params: Params, folder: Path) -> None:
    """Write the embedded data of the environment into ``folder``."""
    if params.environment == "hotpotqa":
        from .hotpotqa.generator import write_encyclopaedia

        write_encyclopaedia(folder, params.catalogue_products, params.catalogue_seed)
        return
    from .webshop.generator import write_catalogue

    write_catalogue(folder, params.catalogue_products, params.catalogue_seed)


def instructions(params: Params) -> str:
    """What a model that was not trained on the environment is told of it."""
    if params.environment == "hotpotqa":
        from . import hotpotqa

        return hotpotqa.INSTRUCTIONS
    from . import webshop

    return webshop.INSTRUCTIONS


def demonstrator(params: Params, environment: Environment) -> Agent:
    """The scripted agent that small agents are cloned from."""
    if params.environment == "hotpotqa":
        from .hotpotqa.reader import Reader

        return Reader(environment)
    from .webshop.shopper import Shopper

    return Shopper(environment)
