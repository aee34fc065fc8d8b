"""Checkpoints: written whole or not at all, loaded without running code from them."""

import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from backbones.engine.pickle_limits import check_pickles
from backbones.errors import CheckpointError

_NAME = re.compile(r"step_(\d{8,})\.pt")


def write_atomically(path: Path, write: Any) -> None:
    """Calls `write(temporary_path)`, flushes the file to disk and renames it to `path`: readers see all or nothing."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode  # as the user's umask wants it; safetensors would leave its own
    write(temporary)
    os.chmod(temporary, mode)
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Writes `state` as the checkpoint after `step` optimizer steps and removes all but the last `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    for old in _checkpoints(folder)[:-keep]:
        old.unlink()
    return path


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
        CheckpointError: the file is missing or damaged, or holds anything but plain data (code is never run).
    """
    try:
        refuse_compressed(path)
        check_pickles(path)
        with warnings.catch_warnings(action="ignore"):  # of foreign pickles, before they are refused
            state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except Exception as error:  # a damaged archive fails in many ways, a pickle with code in UnpicklingError
        reason = str(error).split("\n")[0][:200]
        raise CheckpointError(
            f"{path}: not a readable checkpoint of plain tensors ({reason}); remove it to use the one before"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a checkpoint's dictionary")
    return state


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    steps = {int(m[1]): p for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))}
    return [steps[step] for step in sorted(steps)]
