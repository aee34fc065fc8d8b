"""The check that all options of a detector share."""

from backbones.errors import ConfigError


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Refuses an option's value.

    Raises:
        ConfigError: where `condition` is false; the message names key, value and rule.
    """
    if not condition:
        raise ConfigError(f"{key} must be {rule}, not {value!r}")
