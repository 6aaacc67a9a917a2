"""The products of the official files, loaded by the original's rules."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any

from qvlib.base.errors import QvlibError, brief
from qvlib.environments.webshop import files

GOLDEN_SEED = 12345
"""The seed of the recorded run of the original, which draws prices and price limits unseeded."""

_NOT_NUMBER = re.compile(r"[^\d.]")


@dataclass(frozen=True, slots=True)
class HumanInstruction:
    """One instruction written by a person for a product."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """One product.

    price_tag: what pages show, one price or ``$a to $b``.
    price: what goals and rewards use: the one price, else a draw between the two.
    options: (name, values) in the file's order, lower case.
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    category: str
    query: str
    product_category: str
    price_tag: str
    price: float
    options: tuple[tuple[str, tuple[str, ...]], ...]
    attributes: tuple[str, ...]
    instruction: str | None = None
    instruction_attributes: tuple[str, ...] = ()
    human: tuple[HumanInstruction, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """All products in file order.

    draws: the state of the seeded stream after the prices; goals go on from there, as in the
        original.
    """

    data_dir: Path
    products: tuple[Product, ...]
    by_asin: Mapping[str, Product] = field(repr=False)
    paths: tuple[Path, ...]
    seed: int
    draws: tuple[Any, ...] = field(repr=False)

    def data_hashes(self) -> dict[str, str]:
        """File name -> sha256 of every file read, for manifests."""
        return {path.name: files.sha256(path) for path in self.paths}


def load(data_dir: str | Path, *, seed: int = GOLDEN_SEED) -> Catalogue:
    """Read the official files.

    ``seed`` draws the price of the products that have two, in file order.

    Raises:
        QvlibError: a missing, cut off, foreign or incomplete file, with its record and a remedy.
    """
    product_file, attribute_file = (
        files.find(data_dir, "products"),
        files.find(data_dir, "attributes"),
    )
    human_file = files.find(data_dir, "human instructions")
    attributes = files.mapping(attribute_file)
    human = files.mapping(human_file) if human_file else {}
    stream = random.Random(seed)
    by_asin: dict[str, Product] = {}
    for index, record in files.records(product_file):
        asin = _field(record, "asin", str, product_file, f"record {index}")
        if asin == "nan" or len(asin) > 10 or asin in by_asin:
            continue
        where = f"record {index} ({asin})"
        notes = _instructions(
            asin, attributes.get(asin, {}), human.get(asin, []), attribute_file, human_file
        )
        by_asin[asin] = _product(asin, record, notes, stream, product_file, where)
    if not by_asin:
        raise QvlibError(
            f"{product_file}: no products in it; fetch the file again from {files.RELEASE}"
        )
    paths = tuple(p for p in (product_file, attribute_file, human_file) if p)
    return Catalogue(
        Path(data_dir), tuple(by_asin.values()), by_asin, paths, seed, stream.getstate()
    )


def _product(
    asin: str,
    record: dict[str, Any],
    notes: dict[str, Any],
    stream: random.Random,
    path: Path,
    where: str,
) -> Product:
    def text(key: str) -> str:
        return _field(record, key, str, path, where)

    prices, tag = _prices(record.get("pricing"), path, where)
    bullets = record.get("small_description", _ABSENT)
    if isinstance(bullets, str):
        bullets = [bullets]
    elif not (isinstance(bullets, list) and all(isinstance(b, str) for b in bullets)):
        _field(record, "small_description", list, path, where)
        raise QvlibError(
            f"{path}: {where}: field 'small_description' is not a list of texts; "
            "fetch the file again"
        )
    return Product(
        asin=asin,
        title=text("name"),
        description=text("full_description"),
        bullets=tuple(bullets),
        category=intern(text("category")),
        query=intern(text("query").lower().strip()),
        product_category=intern(text("product_category")),
        price_tag=tag,
        price=prices[0] if len(prices) == 1 else stream.uniform(*prices),
        options=_options(_field(record, "customization_options", object, path, where), path, where),
        **notes,
    )


def _prices(pricing: Any, path: Path, where: str) -> tuple[list[float], str]:
    if not pricing:
        return [100.0], "$100.0"
    try:
        prices = [float(_NOT_NUMBER.sub("", piece)) for piece in pricing.split("$")[1:]][:2]
    except (ValueError, AttributeError):
        prices = []
    if not prices or not all(map(math.isfinite, prices)):
        raise QvlibError(
            f"{path}: {where}: field 'pricing' is {brief(pricing)}, "
            "expected like '$10.99' or '$5.00 - $8.00'"
        )
    return prices, f"${prices[0]}" if len(prices) == 1 else f"${prices[0]} to ${prices[1]}"


def normalized(value: str) -> str:
    """An option's value as the shop shows it."""
    return value.strip().replace("/", " | ").lower()


def _options(groups: Any, path: Path, where: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not groups:
        return ()
    try:
        options = {
            name.lower(): tuple(intern(normalized(c["value"])) for c in contents)
            for name, contents in groups.items()
            if contents is not None
        }
    except (AttributeError, KeyError, TypeError):
        raise QvlibError(
            f"{path}: {where}: field 'customization_options' is not name -> list of objects with a "
            "'value'; fetch the file again"
        ) from None
    return tuple((intern(name), values) for name, values in options.items())


def _instructions(
    asin: str, notes: Any, human: Any, path: Path, human_path: Path | None
) -> dict[str, Any]:
    try:
        instruction = notes.get("instruction")
        fields = {
            "attributes": _texts(notes.get("attributes", ["DUMMY_ATTR"])),
            "instruction": None if instruction is None else _text(instruction),
            "instruction_attributes": _texts(notes.get("instruction_attributes") or ()),
        }
    except (AttributeError, TypeError):
        raise QvlibError(
            f"{path}: {asin}: not an object with a list 'attributes' of texts; fetch the file again"
        ) from None
    try:
        fields["human"] = tuple(
            HumanInstruction(
                _text(h["instruction"]),
                _texts(h["instruction_attributes"]),
                _texts(h["instruction_options"]),
            )
            for h in human
        )
    except (KeyError, TypeError):
        raise QvlibError(
            f"{human_path}: {asin}: an instruction lacks a text 'instruction', or lists of texts "
            "'instruction_attributes' and 'instruction_options'; fetch the file again"
        ) from None
    return fields


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError("a text where a list of texts is meant")
    return tuple(intern(_text(item)) for item in value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


_ABSENT = object()


def _field(record: dict[str, Any], key: str, kind: type, path: Path, where: str) -> Any:
    value = record.get(key, _ABSENT)
    if value is _ABSENT:
        raise QvlibError(
            f"{path}: {where}: no field {key!r}; give the products file of {files.RELEASE}"
        )
    if not isinstance(value, kind):
        raise QvlibError(
            f"{path}: {where}: field {key!r} is {brief(value)}, expected {kind.__name__}; "
            "fetch the file again"
        )
    return value
