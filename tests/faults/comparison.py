"""Whether a run is, bit by bit, the undisturbed one: checkpoints, curve, weights and results."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

Line = dict[str, Any]


def folders_of(run: Path) -> list[Path]:
    """The folder of a run, and those of its stages."""
    return [run, *sorted(run.glob("stages/*"))]


def checkpoints(folder: Path, without: Collection[Path] = ()) -> dict[int, Path]:
    """The checkpoints of a folder by their step, without those that are known to be damaged."""
    found = sorted((folder / "checkpoints").glob("step_*.pt"))
    return {int(path.stem.removeprefix("step_")): path for path in found if path not in without}


def read_lines(folder: Path) -> list[Line]:
    """The whole lines of metrics.jsonl."""
    try:
        texts = (folder / "metrics.jsonl").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    lines = []
    for text in texts:
        try:
            lines.append(json.loads(text))
        except ValueError:  # a kill cut it in two
            continue
    return lines


def read_record(folder: Path) -> dict[str, Any]:
    """run.json; empty where there is none, or none that can be read."""
    try:
        return json.loads((folder / "run.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}


def safe_lines(folder: Path, without: Collection[Path] = ()) -> list[Line]:
    """The lines of a curve that a fault must not cost: those up to the newest checkpoint, all of a finished run.

    The test that is due at the step of the newest checkpoint is done after it, and so may be done again.
    """
    finished = read_record(folder).get("status") == "finished"
    newest = max(checkpoints(folder, without), default=0)
    return [
        line
        for line in read_lines(folder)
        if finished or line["step"] < newest or (line["step"] == newest and line["split"] == "train")
    ]


def safe_step(folder: Path, without: Collection[Path] = ()) -> int:
    """The step after which a run goes on: that of the newest checkpoint, the last of a finished run."""
    if read_record(folder).get("status") == "finished":
        return last_step(folder)
    return max(checkpoints(folder, without), default=0)


def last_step(folder: Path) -> int:
    """The step of the last line of training in a curve; quick, so that waiting takes no time from who is waited for."""
    try:
        text = (folder / "metrics.jsonl").read_bytes()
    except FileNotFoundError:
        return 0
    for line in reversed(text.splitlines()):
        if found := re.match(rb'\{"step": (\d+), "split": "train"', line):
            return int(found[1])
    return 0


def differences(run: Path, undisturbed: Path, without: Collection[Path] = ()) -> Iterator[str]:
    """In what a run, finished or not, departs from the undisturbed one as far as it has come."""
    for folder in folders_of(undisturbed):
        own = run / folder.relative_to(undisturbed)
        if not own.is_dir():
            continue
        # Before the curve, which has the lines up to each: the run may still be at work, and remove old ones too.
        left, theirs = checkpoints(own, without), checkpoints(folder)
        for step, path in left.items():
            if step in theirs:
                try:
                    first, second = (torch.load(each, weights_only=True) for each in (path, theirs[step]))
                except FileNotFoundError:
                    continue
                if not same_bits(first, second):
                    yield f"{path}: other values than the undisturbed run's"
        expected = {(line["step"], line["split"]): line for line in map(_without_clock, read_lines(folder))}
        lines = list(map(_without_clock, read_lines(own)))
        for line in lines:
            if line != expected.get((line["step"], line["split"])):
                yield f"{own}/metrics.jsonl: {line}, undisturbed {expected.get((line['step'], line['split']))}"
        newest = max(left, default=0)
        missing = {key for key in expected if key[0] <= newest and key[1] == "train"}
        if missing := missing - {(line["step"], line["split"]) for line in lines}:
            yield f"{own}/metrics.jsonl: lacks {sorted(missing)[:3]}, and has a checkpoint of step {newest}"


def final_differences(run: Path, undisturbed: Path) -> Iterator[str]:
    """In what a finished run departs from the undisturbed one."""
    yield from differences(run, undisturbed)
    for folder in folders_of(undisturbed):
        own = run / folder.relative_to(undisturbed)
        record, expected = read_record(own), read_record(folder)
        if record.get("status") != "finished":
            yield f"{own}/run.json: status {record.get('status')!r}, not finished"
        if record.get("results") != expected["results"] or not expected["results"]:
            yield f"{own}/run.json: results {record.get('results')}, undisturbed {expected['results']}"
        first, second = (list(map(_without_clock, read_lines(each))) for each in (own, folder))
        if first != second:
            yield f"{own}/metrics.jsonl: {len(first)} lines that are not the {len(second)} of the undisturbed run"
        if not same_bits(read_weights(own), read_weights(folder)):
            yield f"{own}/weights.safetensors: other bits than the undisturbed run's"
    for path in run.rglob(".*.tmp"):
        yield f"{path}: a temporary file that was left"


def read_weights(folder: Path) -> dict[str, Any]:
    """Tensors and metadata of weights.safetensors; empty where there is none."""
    path = folder / "weights.safetensors"
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()} | {"metadata": file.metadata()}  # noqa: SIM118


def same_bits(first: Any, second: Any) -> bool:
    """Whether nested dictionaries and lists hold the same values, tensors to the last bit."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        alike = first.dtype == second.dtype and first.shape == second.shape
        return alike and torch.equal(_bytes(first), _bytes(second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_bits(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same_bits, first, second))
    return first == second


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _without_clock(line: Line) -> Line:
    return {key: value for key, value in line.items() if key != "images_per_second"}
