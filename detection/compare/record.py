"""comparison.json: rows as they were measured, so that none is measured twice."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from backbones.engine.distributed import World
from backbones.engine.machine import cpu_model, describe_machine
from backbones.engine.run_record import flatten
from backbones.errors import RunFolderError
from detection.compare.config import ComparisonConfig, RowConfig, families
from detection.data.annotations import DetectionDataset
from detection.data.readers import fingerprint

FILE = "comparison.json"
_LARGEST = 2**63  # bytes, seconds, percent: finite, and an int that a float can take


@dataclass(frozen=True)
class MeasuredRow:
    """A row as it was measured.

    Args:
        name: of the row.
        dependencies: all that its numbers depend on: digests of the weights, options, test set, machine.
        provenance: the command that measured it, versions, commit, hardware.
        results: as those of a run; None where the objects of the test set are not published.
        pictures: how many were looked at.
        seconds_per_picture, cpu_seconds_per_picture, peak_memory: see `Cost`.
    """

    name: str
    dependencies: dict[str, Any]
    provenance: dict[str, Any]
    results: dict[str, Any] | None
    pictures: int
    seconds_per_picture: float
    cpu_seconds_per_picture: float | None
    peak_memory: int | None

    @property
    def time(self) -> float:
        """Seconds by which rows are compared: on a CPU those of its cores."""
        cpu = self.cpu_seconds_per_picture
        return self.seconds_per_picture if cpu is None else cpu

    def number(self, column: str) -> float | None:
        """The number of a column; None where there is none."""
        value: Any = self.results
        for key in column.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return float(value) if isinstance(value, int | float) else None


Measured = Mapping[str, MeasuredRow]
"""Rows that have been measured, by name."""


def circumstances(config: ComparisonConfig, dataset: DetectionDataset, world: World) -> dict[str, Any]:
    """What the numbers of all rows depend on."""
    on_gpu = world.device.type == "cuda"
    return {
        "metrics": families(config.metric),
        "data": {
            "name": config.data.name,
            "split": config.data.test_split,
            "bad_boxes": config.data.bad_boxes,
            "fingerprint": fingerprint(dataset),
        },
        "device": torch.cuda.get_device_name(world.device) if on_gpu else cpu_model(),
        "precision": config.precision,
        "processes": world.size,
        "threads": None if on_gpu else torch.get_num_threads(),
        "workers": None if on_gpu else config.workers,  # they take cores from what is measured
    }


def provenance() -> dict[str, Any]:
    """What measures, where and by which code, as a run's record has it."""
    return {"command": shlex.join(sys.argv), **describe_machine()}


def dependencies(row: RowConfig, shared: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """All that a row's numbers depend on, in the form that JSON gives back.

    Args:
        shared: see `circumstances`.
        digests: of the weights files, by the models' keys.
    """
    weights = {f"{number} ({key})": digests[key] for number, key in enumerate(row.models, 1)}
    return json.loads(json.dumps({"weights": weights, "inference": asdict(row.inference), **shared}))


def read_rows(folder: Path, names: Sequence[str]) -> dict[str, MeasuredRow]:
    """The rows that an earlier comparison has left in a folder, by name; none where there is no comparison.

    Args:
        names: of the rows that may be there.

    Raises:
        RunFolderError: the file can't be used, or has rows of other names.
    """
    path = folder / FILE
    advice = "start anew with --overwrite, or name another --output"
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: can't be read ({error}); {advice}") from error
    try:
        rows = [_row(values) for values in json.loads(text)["rows"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(f"{path}: not a file of this command ({type(error).__name__}); {advice}") from error
    for row in rows:
        if row.name not in names:
            raise RunFolderError(f"{path}: holds a row {row.name!r}, which this comparison has not; {advice}")
    return {row.name: row for row in rows}


def _row(values: dict[str, Any]) -> MeasuredRow:
    """A row of a file, which may be anyone's."""
    row = MeasuredRow(**{name: values[name] for name in MeasuredRow.__dataclass_fields__})
    kinds: dict[str, Any] = {
        "name": str,
        "dependencies": dict,
        "provenance": dict,
        "results": dict | None,
        "pictures": int,
        "seconds_per_picture": float | int,
        "cpu_seconds_per_picture": float | int | None,
        "peak_memory": int | None,
    }
    for name, kind in kinds.items():
        if not isinstance(getattr(row, name), kind):
            raise TypeError(name)
    costs = [row.pictures, row.seconds_per_picture, row.cpu_seconds_per_picture, row.peak_memory]
    for value in [*costs, *_numbers(row.results or {})]:
        if value is not None and not (type(value) in (int, float) and 0 <= value < _LARGEST):
            raise ValueError(f"{value!r:.40} is no such number")
    asdict(row)  # refuses what is nested too deeply to be written again
    return row


def _numbers(results: dict[str, Any]) -> Iterator[Any]:
    """All that has to be a number, or None, in results as `evaluate_detections` gives them."""
    for metric, values in results.items():
        for name, value in values.items():
            if name != "per_class":
                yield value
            elif metric == "coco":
                yield from (number for numbers in value.values() for number in numbers.values())
            else:
                yield from value.values()


def check_same_row(folder: Path, earlier: MeasuredRow, now: Mapping[str, Any]) -> None:
    """Refuses to take an earlier row for one that would be measured with something else.

    Raises:
        RunFolderError: names the first difference.
    """
    before, after = flatten(earlier.dependencies), flatten(dict(now))
    for key in [*after, *before]:
        if before.get(key) != after.get(key):
            raise RunFolderError(
                f"{folder / FILE}: row {earlier.name!r} was measured with {key} {_short(before.get(key))}, now it is "
                f"{_short(after.get(key))}: measure all anew with --overwrite, or name another --output"
            )


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text[:100]
