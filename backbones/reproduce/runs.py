"""Runs on disk: how far each is, and the numbers that it measured. Nothing that lies in a run folder is trusted."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backbones.engine.checkpoint import latest_checkpoint
from backbones.engine.run import check_output
from backbones.engine.run_record import SAME_RECIPE, differences, flatten
from backbones.errors import RunFolderError
from backbones.jobs import in_use, last_metrics, process_at_work
from backbones.reproduce.requests import Request

State = Literal["to do", "interrupted", "failed", "running", "finished", "broken"]
_MOST_BYTES = 2**24  # of a run.json, which has some kilobytes
_MOST_THREADS = 4096


@dataclass(frozen=True)
class Run:
    """The run of one seed.

    Args:
        experiment: its name.
        seed: of the run.
        folder: the run folder.
        state: "broken" where it can't be used; "running" where a process is at work on it.
        step: what it would go on from.
        reason: why it failed or is broken, or which process is at work on it.
        record: run.json, or what there is of it.
    """

    experiment: str
    seed: int
    folder: Path
    state: State
    step: int = 0
    reason: str = ""
    record: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def threads(self) -> int | None:
        """The number of threads that it was begun with, and has to go on with."""
        threads = self.record.get("threads")
        return threads if type(threads) is int and 1 <= threads <= _MOST_THREADS else None

    def number(self, metric: str) -> float | None:
        """A number of a finished run by its dotted path in `results`, or after "curve." in the last line of that split
        in metrics.jsonl; None where there is none."""
        if self.state != "finished":
            return None
        value: Any = self.record.get("results")
        if metric.startswith("curve."):
            _, split, metric = metric.split(".", 2)
            value = last_metrics(self.folder, split)
        for key in metric.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        return float(value) if usable and math.isfinite(value) else None


def find_run(experiment: str, seed: int, folder: Path, request: Request) -> Run:
    """The run in a folder as it is now; one that was made otherwise than is asked for is broken.

    A finished run may have been computed otherwise (`SAME_RECIPE`); one that is to go on may not.
    """
    if in_use(folder):
        number = process_at_work(folder)
        return Run(experiment, seed, folder, "running", _step(folder), f"process {number}" if number else "")
    try:
        check_output(str(folder), resume=True, overwrite=False)
        if not (folder / "run.json").exists():
            return Run(experiment, seed, folder, "to do")
        record = _read_record(folder)
        config = request.defaults | flatten(record["config"])
    except RunFolderError as foreign:
        return Run(experiment, seed, folder, "broken", reason=str(foreign))
    except (OSError, ValueError, RecursionError) as problem:
        reason = f"{folder / 'run.json'} can't be used ({' '.join(str(problem).split())[:120]}): remove the folder"
        return Run(experiment, seed, folder, "broken", reason=reason)
    status = record.get("status")
    for key, before, now in differences({"config": config}, {"config": request.config | {"seed": seed}}):
        if status == "finished" and key in SAME_RECIPE:
            continue
        reason = (
            f"{folder}: its run had {_short(key)} = {_short(before)}, now {_short(now)} is asked for: "
            "set it back, name other --runs, or remove the folder"
        )
        return Run(experiment, seed, folder, "broken", reason=reason)
    if status == "finished":
        return Run(experiment, seed, folder, "finished", request.steps, record=record)
    error = record.get("error")
    reason = error if isinstance(error, str) else ""
    state: State = "failed" if status == "failed" else "interrupted"  # "running" without a process was killed
    return Run(experiment, seed, folder, state, _step(folder), reason, record)


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("far too long")
    record = json.loads(path.read_text())
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise ValueError("not the record of a run")
    return record


def _step(folder: Path) -> int:
    """The step of the latest checkpoint, which a run goes on from."""
    try:
        path = latest_checkpoint(folder / "checkpoints")
        return int(path.stem.removeprefix("step_")) if path else 0
    except (OSError, ValueError):
        return 0


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
