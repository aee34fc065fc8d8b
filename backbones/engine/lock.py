"""One process at a time writes into a run folder."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backbones.errors import RunFolderError

LOCK = ".lock"  # in the run folder; stays there


@contextmanager
def only_writer(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Holds the lock of a run folder: a POSIX record lock, which ends with its process, however that ends.

    It holds on other machines too, where they share the folder by a file system with locks, as NFS has them. Processes
    that this one forks do not hold it. Within one process it keeps nothing out, and ends with the first that lets go.

    Args:
        patience: seconds to wait for a process that is about to end.

    Raises:
        RunFolderError: another process holds it, or there can be no such file.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RunFolderError(f"{folder}: can't be written ({error.strerror})") from error
    try:
        _acquire(descriptor, folder, patience)
        with suppress(OSError):  # a full disk: the lock holds, only its owner goes unnamed
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            named = f" ({owner})" if owner.isprintable() and owner else ""
            raise RunFolderError(
                f"{folder}: another process is at work in it{named}: wait for it, or name another --output"
            ) from error
        except OSError:  # a file system without locks
            pass
        return
