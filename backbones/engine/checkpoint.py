"""Checkpoints: written whole or not at all, loaded without running code from them."""

import errno
import os
import re
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from backbones.engine.pickle_limits import check_pickles
from backbones.errors import CheckpointError, RunFolderError

_IS_FOLDER = 0x10  # MS-DOS's attribute, in an archive's directory
_OF_THE_MACHINE = (errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_NAME = re.compile(r"step_(\d{8,})\.pt")


def write_atomically(path: Path, write: Any) -> None:
    """Calls `write(temporary_path)`, flushes the file to disk and renames it to `path`: readers see all or nothing."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's umask wants it; safetensors would leave its own
        write(temporary)
        os.chmod(temporary, mode)
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:  # a full disk, a signal: what is there is no use, and takes room
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # a file system that can't flush folders
        _flush(path.parent)  # else a power cut could still undo the renaming


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Writes `state` as the checkpoint after `step` optimizer steps and removes all but the last `keep`.

    Raises:
        RunFolderError: it can't be written; the earlier ones are all there.
    """
    path = folder / f"step_{step:08d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: _save(state, temporary))
    except OSError as error:
        raise RunFolderError(
            f"{path}: can't be written ({error.strerror}): mend that (make room), and go on with --resume"
        ) from error
    for old in _checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def _save(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # PyTorch's archive complains about its position; what the disk said is behind it
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from None
            raise


def load_latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole, and what it holds; None where there is none at all.

    Damaged ones are moved aside (`.damaged`) and named.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    damaged: list[tuple[Path, CheckpointError]] = []
    for path in reversed(_checkpoints(folder)):
        try:
            state = load_checkpoint(path)
        except CheckpointError as error:
            damaged.append((path, error))
            continue
        for bad, reason in damaged:
            bad.replace(_aside(bad))
            step = int(path.stem.partition("_")[2])
            print(f"{reason}: goes on from step {step}, the one before (it is kept as {_aside(bad).name})", flush=True)
        return path, state
    if damaged:
        reason = damaged[0][1]
        others = f", nor are the {len(damaged) - 1} before it" if len(damaged) > 1 else ""
        raise CheckpointError(f"{reason}{others}: put a good one in its place, or start anew with --overwrite")
    return None


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, or None."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def refuse_compressed(path: Path) -> None:
    """PyTorch never compresses its archives; one that is compressed may unpack to far more than there is memory.

    Raises:
        CheckpointError: names the file.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path}: is compressed, as no checkpoint of PyTorch is")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path}: says that it holds more than its size")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; plain tensors and values only.

    Raises:
        CheckpointError: the file is missing or damaged, by the checksums of its records (CRC-32) too, or holds anything
            but plain data (code is never run).
    """
    try:
        refuse_compressed(path)
        _check_sums(path)
        check_pickles(path)
        with warnings.catch_warnings(action="ignore"):  # of foreign pickles, before they are refused
            state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive fails in many ways, a pickle with code in UnpicklingError
        if getattr(error, "errno", None) in _OF_THE_MACHINE or "can't allocate memory" in str(error):
            raise  # the file may be whole
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint of plain tensors ({reason})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a checkpoint's dictionary")
    return state


def _check_sums(path: Path) -> None:
    """PyTorch writes the sums of an archive's records, and does not look at them when it reads."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            # Of a record that says it is a folder PyTorch reads nothing, and leaves what there was in memory.
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & _IS_FOLDER]
        if bad is not None:
            raise CheckpointError(f"{path}: damaged: the checksum of its record {bad!r} is another")
        if folders:
            raise CheckpointError(f"{path}: damaged: its record {folders[0]!r} says that it is a folder")


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    steps = {int(m[1]): p for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))}
    return [steps[step] for step in sorted(steps)]
