"""The detections of several runs on one data set, as the commands of this folder take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.errors import ConfigError
from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable
from detection.evaluate.inputs import read_found


@dataclass
class Run:
    """What a detector found in the pictures of a data set.

    Args:
        name: what to call it.
        path: the file or folder that its detections come from.
        detections: of all pictures.
    """

    name: str
    path: Path
    detections: DetectionTable


def read_runs(
    annotations: Path, split: str, truth: Annotations, detections: Sequence[Path], names: Sequence[str]
) -> list[Run]:
    """The detections of each run.

    Args:
        annotations, split, truth: as `read_found` takes them.
        detections: a file or folder each, as `read_found` takes it.
        names: of the runs; none to call them as their files and folders are called.

    Raises:
        ConfigError: not one name for each, or two of the same.
        DataError: a file is missing or does not fit the annotations.
    """
    if names and len(names) != len(detections):
        raise ConfigError(f"--names: {len(names)} for {len(detections)} run(s); give one for each")
    names = list(names) or [path.stem or str(path) for path in detections]
    if len(set(names)) != len(names):
        raise ConfigError(f"two runs are called {max(names, key=names.count)}: give each its own with --names")
    found = [read_found(annotations, split, truth, path) for path in detections]
    return [Run(*row) for row in zip(names, detections, found, strict=True)]
