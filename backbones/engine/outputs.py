"""Files of results: whole or not at all, and never in the place of what nobody told to replace."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backbones.engine.checkpoint import write_atomically
from backbones.errors import RunFolderError


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all, into a folder that is made where it is missing.

    Raises:
        RunFolderError: the file can't be written.
    """
    check_writable(path)
    try:
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(value, indent=1) + "\n"))
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written ({error.strerror})") from error


def check_writable(path: Path) -> None:
    """Finds out before the long work whether a file of results can be written there, by a try; makes its folder.

    Raises:
        RunFolderError: it is a folder, or no file can be made there.
    """
    try:
        if path.is_dir():
            raise RunFolderError(f"{path}: is a folder; name a file")
        if path.exists() and not path.is_file():  # it would be replaced
            raise RunFolderError(f"{path}: is a device or pipe; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")  # as write_atomically has it
        temporary.touch()
        temporary.unlink(missing_ok=True)  # another process of the run may have been first
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written ({error.strerror})") from error


def refuse_results(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Keeps a command from replacing results that nobody told it to replace.

    Raises:
        RunFolderError: the folder holds a file of one of the names, and `overwrite` is false.
    """
    there = [] if overwrite else [name for name in names if os.path.lexists(folder / name)]
    if there:
        named = there[0] if len(there) == 1 else f"{there[0]} and {len(there) - 1} more"
        raise RunFolderError(
            f"{folder} holds results already ({named}): replace them with --overwrite or name another folder"
        )
