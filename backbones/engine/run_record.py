"""The record of a run (`run.json`): how it is read, and whether two of them are of the same run."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.errors import DataError, RunFolderError
from backbones.regular import read_regular_file

# Keys of a configuration that leave the recipe as it is: how it is computed, and how often something is written.
SAME_RECIPE = (
    "device",
    "precision",
    "deterministic",
    "data.resident",
    "data.cache",
    "data.cache_gigabytes",
    "model.recompute",
    "train.capture",
    "train.compile",
    "train.workers",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.evaluate_every",
    "train.log_every",
    "train.log_gradient_norm",
    "elastic",
    "timeout_minutes",
)
# What may change between a run and its continuation without changing its result.
_FREE_TO_CHANGE = (
    "output",
    "resume",
    "overwrite",
    "allow_mismatch",
    "elastic",
    "timeout_minutes",
    "data.root",
    "data.cache",
    "data.cache_gigabytes",
    "train.workers",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.log_every",
    "model.recompute",
    "expected",
    "protocol",
)
LARGEST_RECORD = 2**26  # bytes of a run.json, which has some kilobytes, or of a recorded run with its curve


def read_record(path: Path) -> dict[str, Any]:
    """The record of a run, from its run.json. Raises RunFolderError if it can't be read."""
    try:
        record = json.loads(read_regular_file(path, largest=LARGEST_RECORD))
    except (OSError, ValueError, RecursionError, DataError) as error:
        raise RunFolderError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(record, dict):
        raise RunFolderError(f"{path}: not a run's record")
    return record


def plain_config(config: Any) -> Any:
    """A configuration as its record has it."""
    return json.loads(json.dumps(asdict(config)))


def _completed(values: Any, defaults: Any) -> Any:
    """Nested dictionaries with the defaults of the keys that are missing."""
    if not (isinstance(values, dict) and isinstance(defaults, dict)):
        return values
    return values | {k: _completed(values[k], default) if k in values else default for k, default in defaults.items()}


def check_same(path: Path, earlier: dict[str, Any], config: Any, facts: dict[str, Any], advice: str) -> None:
    """Compares the record of the run in `path` with a configuration and facts.

    Raises:
        RunFolderError: names the first difference that changes results; ends in `advice`.
    """
    # Options that are younger than the run had their defaults in it.
    config_then = _completed(earlier.get("config"), plain_config(type(config)()))
    before = {"config": config_then} | {key: earlier.get(key) for key in facts}
    for key, was, now in differences(before, {"config": plain_config(config)} | facts):
        raise RunFolderError(f"{path}: its run had {key} = {was}, now it is {now}; {advice}")


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Where the records of two runs differ in what changes a result: (dotted key, value before, value now).

    Args:
        earlier: configuration (as "config") and other facts of one run.
        now: those of the other.
    """
    before, after = flatten(earlier), flatten(now)
    for key in sorted(before.keys() | after.keys()):
        name = key.removeprefix("config.")
        if name not in _FREE_TO_CHANGE and before.get(key) != after.get(key):
            yield name, before.get(key), after.get(key)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
