"""Shards fetched whole to a local disk, where all processes of a machine find them."""

import fcntl
import hashlib
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backbones.data.shards.storage import copy_file, file_size
from backbones.errors import ConfigError, DataError

_NAME = re.compile(r"([0-9a-f]{64})\.(tar|new|lock)")  # whatever else lies in the folder is someone else's


def check_cache(name: str, folder: str | None, gigabytes: float) -> None:
    """Refuses the keys of a cache where none is used, or without a size. Raises ConfigError."""
    if folder and name != "shards":
        raise ConfigError(f"data.cache {folder}: only shards are fetched to it, not data.name {name}; leave it out")
    if not 0 < gigabytes < math.inf:
        raise ConfigError(f"data.cache_gigabytes {gigabytes}: give a number above 0")


def describe_small_cache(gigabytes: float, sizes: list[int], used: int) -> list[str]:
    """A line, if less fits than `used` shards, or all, that are read at a time; sizes are in bytes."""
    used = min(used, len(sizes))
    wanted = used * max(sizes) / 1e9
    if wanted <= gigabytes:
        return []
    return [
        f"data.cache_gigabytes {gigabytes:g}: streams use {used} shards at a time, {wanted:.3g} GB: shards will be "
        "fetched again and again"
    ]


class ShardCache:
    """A folder of shards, bounded: those that were not opened for the longest time leave.

    Files are called by their digest, so several data sets can share a folder. A process that has a shard open still
    reads it after it has left.

    Args:
        folder: on a local disk; made where it is not there.
        limit: bytes of shards that may lie there; those being fetched come on top.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)

    def open(self, place: str, size: int, digest: str) -> int:
        """A descriptor of a shard's local copy, fetched first if it is not there; once, whoever asks meanwhile waits.

        Args:
            place: where it is fetched from.
            size: in bytes, as the index has it.
            digest: SHA-256, likewise.

        Raises:
            DataError: it can't be fetched, or is another than the index says.
        """
        path = self.folder / f"{digest}.tar"
        if size > self.limit:
            raise ConfigError(
                f"data.cache_gigabytes {self.limit / 1e9:g}: {place} has {size / 1e9:g}; give a multiple of it"
            )
        with self._writing():
            while True:
                if (found := _open(path, size)) is not None:
                    return found
                with _locked(path.with_suffix(".lock")) as ours:
                    if ours and not path.exists():
                        self._remove_remains()
                        self._fetch(place, size, digest, path.with_suffix(".new"))
                        self._make_room(size)
                        os.replace(path.with_suffix(".new"), path)

    def _fetch(self, place: str, size: int, digest: str, partial: Path) -> None:
        try:
            found = file_size(place)
            if found in (None, size):  # else there is no need to fetch it
                copy_file(place, partial)
                found = partial.stat().st_size
            if found != size:
                raise DataError(
                    f"{place}: has {found:,} bytes, the index says {size:,}: it is cut off or another's: copy it anew"
                )
            with partial.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise DataError(
                        f"{place}: is damaged: its content is not what the index says (SHA-256): copy it anew"
                    )
                os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> None:
        """Removes the oldest shards until one of `size` bytes fits."""
        found = []
        for path in self._files("tar"):
            try:
                about = path.stat()
            except FileNotFoundError:  # another process makes room too
                continue
            found.append((about.st_mtime_ns, about.st_size, path))
        total = sum(taken for _, taken, _ in found)
        for _, taken, path in sorted(found):
            if total + size <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= taken

    def _remove_remains(self) -> None:
        """Removes what processes that were killed left of their fetching."""
        for path in [*self._files("new"), *self._files("lock")]:
            with suppress(BlockingIOError, PermissionError), _locked(path.with_suffix(".lock"), wait=False) as ours:
                if ours:
                    path.with_suffix(".new").unlink(missing_ok=True)

    def _files(self, kind: str) -> list[Path]:
        """The cache's own files of a kind: tar, new (a shard that is being fetched) or lock."""
        return [path for path in self.folder.iterdir() if (m := _NAME.fullmatch(path.name)) and m[2] == kind]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.folder}: data.cache can't be used ({error.strerror or error})") from error


def _open(path: Path, size: int) -> int | None:
    """A descriptor of a file of that size, which is marked as used now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if os.fstat(descriptor).st_size != size:  # of a disk that lost power
        os.close(descriptor)
        path.unlink(missing_ok=True)
        return None
    with suppress(FileNotFoundError, PermissionError):  # it has left just now, or is another user's
        os.utime(path)
    return descriptor


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Takes a lock, a file that goes with it; False if that had gone already, and so is no longer what others wait for.
    Raises BlockingIOError if someone has it and it is not to be waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)  # may be another user's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            same = path.stat().st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            same = False
        try:
            yield same
        finally:
            if same:
                path.unlink()
    finally:
        os.close(descriptor)
