"""A classification data set by the name of its layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from backbones.data import shapes
from backbones.data.cifar10 import CLASS_NAMES as CIFAR10_CLASSES
from backbones.data.cifar10 import read_cifar10
from backbones.data.datasets import ClassificationDataset
from backbones.data.folder import read_folder
from backbones.data.shapes import shapes_for_classification
from backbones.data.shards.cache import ShardCache, check_cache
from backbones.data.shards.reading import read_shards
from backbones.errors import ConfigError, DataError


def read_split(
    name: Literal["folder", "shards", "cifar10", "shapes"],
    root: str | None,
    split: str,
    class_names: Sequence[str] | None,
    drawn_size: int,
    drawn_count: int,
    *,
    official: bool = False,
    cache: str | None = None,
    cache_gigabytes: float = 200.0,
) -> ClassificationDataset:
    """Reads one split.

    Args:
        class_names: the classes that its labels must count in; None takes the data's own.
        drawn_size, drawn_count: side and number of the pictures that the built-in shapes draw.
        official: refuse files that are not the published ones, to the byte (CIFAR-10).
        cache: the folder that whole shards are fetched to; shards behind a URL need one.
        cache_gigabytes: how much of them may lie there.

    Raises:
        ConfigError: no root or cache where one is needed, a cache where none is used or without a size, or files of
            folders, shards or shapes are claimed to be official.
        DataError: the data can't be read, or its classes are others.
    """
    if official and name != "cifar10":
        raise ConfigError(f"data.official: only CIFAR-10's files are known to the byte, not those of data.name {name}")
    check_cache(name, cache, cache_gigabytes)
    if name == "folder":
        return read_folder(_needed(root, name), split, list(class_names) if class_names is not None else None)
    if name == "shards":
        local = ShardCache(Path(cache), int(cache_gigabytes * 1e9)) if cache else None
        return read_shards(
            _needed(root, name), split, list(class_names) if class_names is not None else None, cache=local
        )
    fixed = shapes.CLASS_NAMES if name == "shapes" else CIFAR10_CLASSES
    if class_names is not None and list(class_names) != fixed:
        raise DataError(
            f"data.name {name}: its classes ({', '.join(fixed)}) are not the network's ({', '.join(class_names)})"
        )
    if name == "shapes":
        return shapes_for_classification(split, drawn_count, drawn_size)
    return read_cifar10(_needed(root, name), split, official=official)


def _needed(root: str | None, name: str) -> str:
    if not root:
        raise ConfigError(f"data.root is missing: name the folder of the {'pictures' if name == 'folder' else name}")
    return root
