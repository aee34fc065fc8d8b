"""A YAML file as typed dataclasses: every key and value is checked, and what is wrong is named by its place."""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from backbones.errors import ConfigError
from backbones.yaml_limits import check_yaml

T = TypeVar("T")
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def read_yaml(path: Path, shape: type[T]) -> T:
    """Reads a file as the dataclass `shape`, whose fields may be dataclasses, lists, dictionaries by name and unions.

    Raises:
        ConfigError: it can't be read or is no YAML; a key is missing or unknown, or a value has another type.
    """
    try:
        text = path.read_text()
        check_yaml(text)
        return _build(shape, yaml.safe_load(text), "")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: can't be read ({' '.join(str(error).split())[:200]})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _build(shape: Any, value: Any, place: str) -> Any:
    """`value` as what the type `shape` says; `place` is that of the value in the file, with dots."""
    if is_dataclass(shape):
        return _build_dataclass(shape, value, place)
    origin, inner = get_origin(shape), get_args(shape)
    if origin is UnionType:
        fitting = [choice for choice in inner if _fits(choice, value)]
        if fitting:
            return _build(fitting[0], value, place)
    elif shape is Any:
        return value
    elif not _fits(shape, value):
        pass
    elif origin is list:
        return [_build(inner[0], item, f"{place}[{number}]") for number, item in enumerate(value)]
    elif origin is dict:
        return {key: _build(inner[1], item, _below(place, key)) for key, item in value.items()}
    else:
        return float(value) if shape is float else value
    wanted = " or ".join(_word(choice) for choice in (inner if origin is UnionType else (shape,)))
    raise ConfigError(f"{place}: must be {wanted}, not {str(value)[:60]!r}")


def _build_dataclass(shape: Any, value: Any, place: str) -> Any:
    where = place or "the file"
    if not _fits(shape, value):
        raise ConfigError(f"{where}: must be {_word(shape)}, not {str(value)[:60]!r}")
    known = {item.name: item for item in fields(shape)}
    for key in value:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r} (known: {', '.join(known)})")
    for name, item in known.items():
        if name not in value and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{where}: {name} is missing")
    hints = get_type_hints(shape)
    return shape(**{key: _build(hints[key], item, _below(place, key)) for key, item in value.items()})


def _fits(shape: Any, value: Any) -> bool:
    """Whether a value is of a type, what it holds aside."""
    kind = get_origin(shape) or shape
    if kind is dict or is_dataclass(kind):
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return type(value) in ((int, float) if kind is float else (kind,))


def _word(shape: Any) -> str:
    kind = get_origin(shape) or shape
    if kind is dict or is_dataclass(kind):
        return "names with values"
    return "a list" if kind is list else _WORDS[kind]


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
