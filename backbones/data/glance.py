"""What lies in folders, as far as one can look within a moment: for messages about data that is somewhere else."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_ENTRIES = 1000  # of a folder that are looked at
_FOLDERS = 20  # that are looked into, and of each of them


def glance(folder: Path) -> tuple[list[str], list[Path]]:
    """Names of the first files in a folder, and its first folders."""
    try:
        with os.scandir(folder) as entries:
            some = sorted(islice(entries, _ENTRIES), key=lambda entry: entry.name)
    except OSError:
        return [], []
    return [e.name for e in some if not is_folder(e)], [Path(e.path) for e in some if is_folder(e)]


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Folders in folders, the nearest first."""
    level = [folder]
    for _ in range(depth):
        level = [inner for outer in level[:_FOLDERS] for inner in glance(outer)[1][:_FOLDERS]]
        yield from level


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one, as far as that can be found out."""
    try:
        return entry.is_dir()
    except OSError:
        return False
