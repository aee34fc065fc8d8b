"""A run folder: what ran, with what, how it went (`run.json`, `metrics.jsonl`, TensorBoard events, checkpoints)."""

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backbones.engine.checkpoint import write_atomically
from backbones.engine.events import EventFile
from backbones.engine.lock import LOCK, only_writer
from backbones.engine.machine import describe_machine
from backbones.engine.outputs import write_json
from backbones.engine.run_record import check_same, plain_config, read_record
from backbones.errors import RunFolderError, Stopped
from backbones.stopping import put_off_stops
from backbones.text import is_utf8

_ELASTIC = ("processes", "threads")  # facts that an elastic run may change
_OTHER_RUN = (
    "set it back, or go on all the same with --allow_mismatch (--elastic where only processes and threads may change)"
)
DIVERGED_BATCH = "diverged_batch.json"  # names the pictures at which a run came to its end
# What a run writes into its folder; run.json, by which a folder counts as a run, is the last to be removed.
_OWN = (
    "metrics.jsonl",
    DIVERGED_BATCH,
    "weights.safetensors",
    "checkpoints",
    "*.npy",
    "events.out.tfevents.*",
    ".*.tmp",
    "run.json",
)
_ADVICE = "mend that (make room), and go on with --resume"
_PATIENCE = 10.0  # seconds that a run which goes on waits for its predecessor to end


class RunFolder:
    """The folder of one run. Open it with `open_run`."""

    def __init__(self, path: Path, record: dict[str, Any], continued: bool = False):
        self.path = path
        self.record = record
        self._continued = continued
        self._metrics = path / "metrics.jsonl"
        self._events: EventFile | None = None
        self._with_tensorboard = True
        self.started = False
        seconds = record.get("wall_clock_seconds")
        self._earlier_seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
        self._clock = time.monotonic()

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The final weights."""
        return self.path / "weights.safetensors"

    def update(self, **fields: Any) -> None:
        """Changes fields of `run.json`; of a run that goes on, removes first what was being written when it ended."""
        if self._continued and not self.started:
            _remove_temporary(self.path)
        self.started = True
        seconds = self._earlier_seconds + time.monotonic() - self._clock
        self.record.update(fields, wall_clock_seconds=round(seconds, 1))
        write_json(self.path / "run.json", self.record)

    def begin(self, step: int) -> None:
        """Records that training begins; of a run that goes on after which step, with how many processes and threads."""
        restarts = self.record["restarts"]
        if self._continued:
            restarts = [*restarts, {"step": step} | {name: self.record.get(name) for name in _ELASTIC}]
        self.update(restarts=restarts)

    def log(self, step: int, split: str, values: dict[str, float]) -> None:
        """Adds a line to `metrics.jsonl` and the same values to TensorBoard. Raises RunFolderError."""
        try:
            with self._metrics.open("a") as file:
                file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        except OSError as error:
            raise RunFolderError(f"{self._metrics}: can't be written ({error.strerror}): {_ADVICE}") from error
        self._add_scalars(step, split, values)

    def flush(self) -> None:
        """Makes sure that the lines are on the disk, as a checkpoint is about to be. Raises RunFolderError."""
        if not self._metrics.exists():
            return
        try:
            with self._metrics.open("a") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFolderError(f"{self._metrics}: can't be written ({error.strerror}): {_ADVICE}") from error

    def take_over(self, metrics: Path, offset: int) -> None:
        """Adds the lines of another run's metrics.jsonl, `offset` steps later."""
        for values in filter(None, map(_parse_metrics, metrics.read_text(errors="replace").splitlines())):
            self.log(offset + values.pop("step"), values.pop("split"), values)

    def forget_after(self, step: int, tests: Collection[int] = ()) -> None:
        """Drops what a run resumed after `step` writes anew: all later metrics, and the `tests` after these steps."""
        (self.path / DIVERGED_BATCH).unlink(missing_ok=True)
        if not self._metrics.exists():
            return
        lines = filter(None, map(_parse_metrics, self._metrics.read_text(errors="replace").splitlines()))
        kept = [v for v in lines if v["step"] <= step and not (v["split"] == "test" and v["step"] in tests)]
        try:
            write_atomically(self._metrics, lambda path: path.write_text("".join(json.dumps(v) + "\n" for v in kept)))
            self.close()
            self._events = None
            for events in self.path.glob("events.out.tfevents.*"):
                events.unlink()
        except OSError as error:
            raise RunFolderError(f"{self._metrics}: can't be written ({error.strerror}): {_ADVICE}") from error
        for values in kept:
            self._add_scalars(values.pop("step"), values.pop("split"), values)

    def _add_scalars(self, step: int, split: str, values: dict[str, float]) -> None:
        if not self._with_tensorboard:
            return
        try:
            if self._events is None:
                self._events = EventFile(self.path)
            self._events.add(step, {f"{split}/{name}": value for name, value in values.items()})
        except OSError as error:  # all that it would show is in metrics.jsonl
            self._with_tensorboard = False
            print(f"{self.path}: TensorBoard's events can't be written ({error.strerror}): goes on without", flush=True)

    def close(self) -> None:
        """Flushes what is still in memory."""
        if self._events is not None:
            with suppress(OSError):
                self._events.close()


@contextmanager
def open_run(
    output: str | None,
    config: Any,
    *,
    resume: bool,
    overwrite: bool,
    allow_mismatch: bool,
    elastic: bool = False,
    **facts: Any,
) -> Iterator[RunFolder]:
    """Creates or continues the run folder `output`; records in the end whether it finished, failed or was interrupted.

    Args:
        output: the folder.
        config: the resolved configuration (a dataclass), written to `run.json`.
        resume: go on with the run in the folder, if there is one. Its record changes with the first `update`, so that
            nothing is lost where the run turns out not to go on.
        overwrite: remove the run in the folder first.
        allow_mismatch: resume although configuration or facts differ.
        elastic: resume although the number of processes or threads differs; this is said.
        facts: what must be alike on resume too (data fingerprint, number of processes and threads).

    Raises:
        RunFolderError: the folder holds a run or foreign files, can't be written, or the run there is another one.
    """
    path = check_output(output, resume=resume, overwrite=overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written ({error.strerror})") from error
    with only_writer(path, _PATIENCE if resume else 0.0):
        earlier = _prepare(path, resume=resume, allow_mismatch=allow_mismatch)
        if earlier and not allow_mismatch:
            fixed = {key: value for key, value in facts.items() if not (elastic and key in _ELASTIC)}
            check_same(path, earlier, config, fixed, _OTHER_RUN)
        if earlier and elastic:
            _tell_changes(earlier, facts)
        values = plain_config(config)
        record = {
            **earlier,
            "status": "running",
            "command": shlex.join(sys.argv),
            "config": values,
            **facts,
            **describe_machine(),
            "seed": values.get("seed"),
            "started": earlier.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            "restarts": earlier.get("restarts") if isinstance(earlier.get("restarts"), list) else [],
            "results": earlier.get("results"),
            "error": None,
        }
        run = RunFolder(path, record, continued=bool(earlier))
        if not earlier:
            run.update()
        try:
            yield run
            run.update(status="finished")
        except BaseException as error:
            if isinstance(error, Stopped):
                error.resumable = True
            if run.started:
                _record_end(run, error)
            raise
        finally:
            run.close()


def _tell_changes(earlier: dict[str, Any], facts: dict[str, Any]) -> None:
    """Says what an elastic run has more or fewer of than before."""
    for name in _ELASTIC:
        was, now = earlier.get(name), facts.get(name)
        if was != now:
            print(
                f"goes on with {now} {name}, it had {was}: the same batches, dealt out anew (batch norm sees other "
                "portions, sums have another order)",
                flush=True,
            )


def _record_end(run: RunFolder, error: BaseException) -> None:
    """Notes why a run came to its end; where the disk is the reason, that may not be possible either."""
    interrupted = isinstance(error, KeyboardInterrupt)
    text = str(error) if interrupted else " ".join(f"{type(error).__name__}: {error}".split())[:500]
    with suppress(OSError, RunFolderError), put_off_stops(says=False):
        run.update(status="interrupted" if interrupted else "failed", error=text)


def check_output(output: str | None, *, resume: bool, overwrite: bool) -> Path:
    """The folder of a run, if the run may use it; nothing is changed yet.

    Raises:
        RunFolderError: no folder is named, or it holds foreign files, or a run that is neither resumed nor replaced.
    """
    if not output:
        raise RunFolderError("--output is missing: name a folder for the run")
    path = Path(output)
    if not is_utf8(output):
        raise RunFolderError(f"{path}: its name is not UTF-8, as weights files need: name another --output")
    if overwrite and not resume and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        raise RunFolderError(
            f"{path}: torchrun has started the processes anew, and --overwrite would remove what they had done: give "
            "--resume in its place"
        )
    try:
        if (path / "run.json").exists():
            if not (resume or overwrite):
                raise RunFolderError(f"{path} holds a run already: go on with --resume or replace it with --overwrite")
        elif path.exists() and (
            not path.is_dir() or any(entry.name not in (".run.json.tmp", LOCK) for entry in path.iterdir())
        ):
            raise RunFolderError(f"{path} exists and is no run of ours: name another --output")
    except OSError as error:
        raise RunFolderError(f"{path}: can't be read ({error.strerror})") from error
    return path


def _prepare(path: Path, *, resume: bool, allow_mismatch: bool) -> dict[str, Any]:
    """The record of the run that is resumed, if any; else the folder is emptied of an earlier run."""
    record_file = path / "run.json"
    try:
        if record_file.exists():
            if resume:
                return _read_earlier(record_file, allow_mismatch)
            _remove_run(path)
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written ({error.strerror})") from error
    return {}


def _read_earlier(record_file: Path, allow_mismatch: bool) -> dict[str, Any]:
    """The record of the run that goes on; empty where it is damaged and need not be compared with."""
    try:
        return read_record(record_file)
    except RunFolderError as error:
        if allow_mismatch:
            print(f"{error}: goes on without it", flush=True)
            return {}
        raise RunFolderError(f"{error}: --resume --allow_mismatch goes on from the checkpoints all the same") from error


def _remove_temporary(path: Path) -> None:
    """Removes what was being written when a process was killed."""
    for folder in (path, path / "checkpoints"):
        for entry in folder.glob(".*.tmp"):
            entry.unlink(missing_ok=True)


def _remove_run(path: Path) -> None:
    """Removes what a run and the runs of its stages wrote, and leaves alone what else lies in their folders."""
    for stage in path.glob("stages/*"):
        if (stage / "run.json").exists():
            _remove_run(stage)
            (stage / LOCK).unlink(missing_ok=True)
            _remove_if_empty(stage)
    _remove_if_empty(path / "stages")
    for pattern in _OWN:
        for entry in path.glob(pattern):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _parse_metrics(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl, or None for what is none: the line that a kill cut in two."""
    try:
        values = json.loads(line)
        numbers = {key: value for key, value in values.items() if key != "split"}
    except (ValueError, AttributeError, RecursionError):
        return None
    whole = isinstance(values.get("split"), str) and isinstance(values.get("step"), int)
    return values if whole and all(isinstance(n, int | float) for n in numbers.values()) else None
