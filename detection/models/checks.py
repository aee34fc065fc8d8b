"""The check that all options of a detector share."""

from dataclasses import fields
from typing import Any

from backbones.errors import ConfigError


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Refuses an option's value.

    Raises:
        ConfigError: where `condition` is false; the message names key, value and rule.
    """
    if not condition:
        raise ConfigError(f"{key} must be {rule}, not {value!r}")


def require_types(options: Any, prefix: str) -> None:
    """Refuses fields of a dataclass of options that are of another type than their defaults (they may be from a file).

    Raises:
        ConfigError: names the first of them.
    """
    for field in fields(options):
        value, kind = getattr(options, field.name), type(field.default)
        if field.default is None:  # a whole number that need not be given
            fits = value is None or type(value) is int
        else:
            fits = type(value) is kind or (kind is float and type(value) is int)
        require(fits, f"{prefix}.{field.name}", value, "a whole number" if kind is int else f"a {kind.__name__}")
