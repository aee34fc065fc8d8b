"""Small files that someone else made, and that may be no files at all."""

import os
import stat
from pathlib import Path

from backbones.errors import DataError


def read_regular_file(path: str | Path, *, largest: int | None = None, advice: str = "") -> bytes:
    """The content of a file. A pipe or a device, which might never end, is not waited for.

    Args:
        largest: how many bytes such a file can have.
        advice: what to do about one that is refused, for the message; for callers that do not say so themselves.

    Raises:
        DataError: `path` is neither a file nor a link to one, or larger.
        OSError: there is no such file, or it can't be read.
    """
    ending = f": {advice}" if advice else ""
    # O_NONBLOCK: opening a pipe would wait for someone who writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path}: is no file{ending}")
        if largest is not None and found.st_size > largest:
            raise DataError(f"{path}: larger than {largest:,} bytes, as no such file is{ending}")
        return _read_all(descriptor, found.st_size)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, size: int) -> bytes:
    """Down to the end, wherever that is by now: some files of /proc say that they are empty."""
    parts = []
    while part := os.read(descriptor, max(size, 4096) + 1):
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
