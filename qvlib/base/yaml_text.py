"""YAML as people write it: what its rules would silently take for something else is refused."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from qvlib.base.errors import QvlibError, brief

LARGEST = 200_000
"""Bytes of a file; those of the project are under ten thousand."""
DEEPEST = 20
"""Levels of lists and mappings inside each other."""


def read_mapping(path: Path, name: str, kind: str, form: str, examples: str) -> dict[Any, Any]:
    """The mapping that a YAML file holds.

    Args:
        name: the file as it was named, for messages.
        kind, form: what the file is: ``parameter file``, ``a flat list of ...``.
        examples: folder with files of that kind.

    Raises:
        QvlibError: no such file, too large a one, no mapping, or what ``parse_yaml`` refuses.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise QvlibError(f"{name}: no such {kind}; see {examples}") from None
    except OSError as error:
        raise QvlibError(
            f"{name} cannot be read: {error.strerror}; give a {kind}, see {examples}"
        ) from None
    if len(text) > LARGEST:
        raise QvlibError(f"{name}: over {LARGEST:,} bytes, so no {kind}; see {examples}")
    value = parse_yaml(text, name)
    if not isinstance(value, dict):
        raise QvlibError(f"{name}: a {kind} is {form}; see {examples}")
    return value


def parse_yaml(text: str | bytes, source: str) -> Any:
    """What a YAML text holds.

    Raises:
        QvlibError: it is no YAML, sets a key twice, nests too deep, or has what is read as other
            than it looks: aliases, tags, octal numbers and such of base 60.
    """
    try:
        loader = _Loader(text)
        loader.source = source
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:  # whose text quotes the file, which may hold a key
        why = " ".join(filter(None, (error.context, error.problem)))
        at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise QvlibError(f"{source}: not YAML: {at}{why}; see params/quick.yml") from None
    except yaml.reader.ReaderError as error:  # of bytes in another encoding, or none of a text
        raise QvlibError(
            f"{source}: not YAML: at character {error.position}: {error.reason}; save it as text "
            "in UTF-8"
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter two of bad values
        raise QvlibError(f"{source}: not YAML: {error}; see params/quick.yml") from None


def number_type(text: str) -> type[int] | type[float] | None:
    """The type of the number that a text is without quotes; None where it is none."""
    try:
        value = parse_yaml(text, "")
    except QvlibError:
        return None
    return type(value) if type(value) in (int, float) else None


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, less of YAML."""

    source = ""
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"*{event.anchor} stands for another value; write that out")
        if getattr(event, "tag", None) not in (None, "!"):
            self._refuse(event, f"the tag {event.tag}; write the plain value")
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(event, f"more than {DEEPEST} levels of lists and mappings; write it flat")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                continue  # which is refused below
            if key in lines:
                raise QvlibError(
                    f"{self.source}: {brief(key)} is set twice, in lines {lines[key]} and {line}; "
                    "keep one of them"
                )
            lines[key] = line
        return super().construct_mapping(node, deep)

    def number(self, node: Any) -> Any:
        """An integer or a float in base ten."""
        text = self.construct_scalar(node)
        read = (
            super().construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        )
        if ":" in text:
            self._refuse(
                node, f"{text} is {read(node)} in YAML, to base 60; write the number, or quote it"
            )
        if re.fullmatch(r"[-+]?0[0-7_]+", text):
            meant = int(text.replace("_", ""))
            self._refuse(
                node, f"{text} is {read(node)} in YAML, to base 8; write {meant}, or quote it"
            )
        return read(node)

    def _refuse(self, at: Any, why: str) -> None:
        raise QvlibError(f"{self.source}, line {at.start_mark.line + 1}: {why}")


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)
