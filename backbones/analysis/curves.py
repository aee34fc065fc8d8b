"""Training curves: the errors that a run has logged, from its folder or from a recorded run."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbones.errors import DataError, RunFolderError
from backbones.regular import read_regular_file
from backbones.text import printable

_ADVICE = "name run folders or recorded runs"
_MOST_BYTES = 2**28  # of one file: a line is some 150 bytes


@dataclass(frozen=True)
class Curve:
    """The errors of a run.

    Args:
        label: what to call the run.
        train: (N, 2) of step and top-1 error in percent, each an average over the steps since the one before.
        test: (M, 2) likewise, on the test split.
    """

    label: str
    train: np.ndarray
    test: np.ndarray


def read_curve(path: str | Path) -> Curve:
    """Reads a run folder, even of a run that still goes on, or a recorded run (results/*/*.json).

    The label is the network's name, with the options that it has.

    Raises:
        RunFolderError: the path is neither, it can't be read, or it holds no top-1 errors.
    """
    path = Path(path)
    if path.is_dir():
        record = _parse(path / "run.json", _read(path / "run.json"))
        # The last line may be cut: the run is writing it, or was killed.
        lines: Any = map(_parse_line, _read(path / "metrics.jsonl").splitlines())
    else:
        record = _parse(path, _read(path))
        lines = record.get("curve")
        if not isinstance(lines, list):
            raise RunFolderError(f"{path}: no recorded run (it has no curve); name a run folder or a file of results/")
    points: dict[str, dict[int, float]] = {"train": {}, "test": {}}
    for line in lines:
        if point := _point(line):
            split, step, error = point
            points[split][step] = error
    if not any(points.values()):
        raise RunFolderError(f"{path}: has logged no top1_error; only classifiers do")
    train, test = (np.array(sorted(points[split].items()), dtype=float).reshape(-1, 2) for split in ("train", "test"))
    return Curve(_label(record) or path.stem, train, test)


def smooth(values: np.ndarray, points: int) -> np.ndarray:
    """The running mean (N,) over `points` values around each; over those that there are at the ends.

    Args:
        values: (N,).
        points: an odd number; 1 leaves all as it is.
    """
    window = np.ones(points)
    half = points // 2
    sums = np.convolve(values, window)[half : half + len(values)]
    return sums / np.convolve(np.ones_like(values), window)[half : half + len(values)]


def distinct(labels: Iterable[str]) -> list[str]:
    """Labels, numbered where two are alike."""
    labels = list(labels)
    places = {label: iter(range(1, labels.count(label) + 1)) for label in labels}
    return [label if labels.count(label) == 1 else f"{label} #{next(places[label])}" for label in labels]


def _point(line: Any) -> tuple[str, int, float] | None:
    """(split, step, error in percent) of a line of metrics.jsonl, or None where it has no error."""
    if not isinstance(line, dict):
        return None
    split, step, error = (line.get(key) for key in ("split", "step", "top1_error"))
    if split not in ("train", "test") or not isinstance(step, int) or not isinstance(error, int | float):
        return None
    # Other values are no errors in percent, and beyond 2**53 floats skip steps.
    return (split, step, float(error)) if 0 <= step < 2**53 and 0 <= error <= 100 else None


def _label(record: dict[str, Any]) -> str | None:
    config = record.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        return None
    options = model.get("options")
    words = [f"{key} {value}" for key, value in options.items()] if isinstance(options, dict) else []
    label = model["name"] + (f" ({', '.join(words)})" if words else "")
    return printable(label)[:60]


def _read(path: Path) -> str:
    try:
        return read_regular_file(path, largest=_MOST_BYTES).decode(errors="replace")
    except FileNotFoundError as error:
        raise RunFolderError(f"{path}: no such file: {_ADVICE}") from error
    except OSError as error:
        raise RunFolderError(f"{path}: can't be read ({error.strerror}): {_ADVICE}") from error
    except DataError as error:
        raise RunFolderError(f"{error}: {_ADVICE}") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path}: not readable as JSON ({error}): {_ADVICE}") from error
    if not isinstance(record, dict):
        raise RunFolderError(f"{path}: not the record of a run: {_ADVICE}")
    return record


def _parse_line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
