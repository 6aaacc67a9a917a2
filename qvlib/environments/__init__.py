"""Worlds that meet the ``Environment`` protocol, and the one place that knows them all by name."""

from __future__ import annotations

from pathlib import Path

from ..params import Params
from ..paths import resolve
from ..types import Environment


def make(params: Params, embedded: Path) -> Environment:
    """The environment of a run; ``embedded`` is the folder of generated data, used where ``data_dir`` is empty."""
    from . import webshop

    nouns = params.title_nouns if params.title_nouns in ("auto", "spacy") else resolve(params.title_nouns)
    return webshop.build(
        resolve(params.data_dir) if params.data_dir else embedded, goals=params.goals, title_nouns=nouns,
        repair=params.repair_rules, max_steps=params.max_steps, timeout_value=params.timeout_value,
        dev_share=params.dev_share, test_share=params.test_share)


def make_data(params: Params, folder: Path) -> None:
    """Write the embedded data of the environment into ``folder``."""
    from .webshop.generator import write_catalogue

    write_catalogue(folder, params.catalogue_products, params.catalogue_seed)


def demonstrator(params: Params, environment: Environment):
    """The scripted agent that small agents are cloned from."""
    from .webshop.shopper import Shopper

    return Shopper(environment)
