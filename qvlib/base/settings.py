"""Settings that a person types flat: each with a default, a meaning, bounds and its stage.

A section is a frozen class of settings. It belongs to what it configures (a world, an estimator, an
arm); ``qvlib.pipeline.params`` puts the sections of a run together.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from qvlib.base.markup import visible

_OF_SECTION = "the section's"
_MOST = {int: 2**31 - 1, float: 1e38}
"""What a number may be at most where nothing less is said: what seeds and float32 can hold."""


class Settings(BaseModel):
    """A section. ``stage``: the stage that its settings decide unless one says otherwise.

    Settings that decide no stage change how a run goes about its work, not what comes out.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False
    )
    stage: ClassVar[str | None] = None

    @field_validator("*", mode="after", check_fields=False)
    @classmethod
    def _is_kept_as_typed(cls, value: Any) -> Any:
        """Text that terminals and files can hold, mappings that JSON can."""
        if isinstance(value, str) and visible(value).split("\n") != [value]:
            raise ValueError("Input should be one line without control characters")
        if isinstance(value, dict):
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                raise ValueError("Input should hold what JSON has, finite numbers alone") from None
        return value

    def deciding(self, stage: str) -> dict[str, Any]:
        """The settings that decide the outcome of a stage; an option at its default does not."""
        return {
            name: getattr(self, name)
            for name in self.names()
            if stage in self.decides(name) and not self._is_unused(name)
        }

    def _is_unused(self, name: str) -> bool:
        """Whether it is an option that is left at its default."""
        known = type(self).model_fields[name]
        return known.json_schema_extra["option"] and getattr(self, name) == known.default

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the settings, in the order they are written."""
        return tuple(cls.model_fields)

    @classmethod
    def decides(cls, name: str) -> tuple[str, ...]:
        """The stages whose outcome a setting decides."""
        told = cls.model_fields[name].json_schema_extra["decides"]
        return tuple(filter(None, (cls.stage,))) if told == _OF_SECTION else tuple(told)


def setting(
    default: Any,
    meaning: str,
    *,
    decides: str | tuple[str, ...] | None = _OF_SECTION,
    option: bool = False,
    **limits: Any,
) -> Any:
    """One setting of a section.

    Args:
        meaning: one line, with unit, range and the published value where there is one.
        decides: the stage or stages whose outcome it decides; None = none; else the section's own.
        option: at its default it decides nothing, so that what was made before there was such a
            setting is found again. The default is then what was done before, and stays.
        limits: bounds as pydantic's ``Field`` takes them: ``ge``, ``le``, ``pattern``, ... A number
            without one has the widest that anything can work with.
    """
    if decides is None:
        decides = ()
    elif isinstance(decides, str) and decides != _OF_SECTION:
        decides = (decides,)
    most = _MOST.get(type(default))
    if most is not None:
        if limits.keys().isdisjoint({"le", "lt"}):
            limits["le"] = most
        if limits.keys().isdisjoint({"ge", "gt"}):
            limits["ge"] = -most
    told = {"decides": decides, "option": option}
    return Field(default, description=meaning, json_schema_extra=told, **limits)
