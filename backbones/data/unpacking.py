"""Putting the files of archives into a folder, so that a run which was killed goes on where it stopped.

A file is written under another name and then renamed, and one that is there with the same content is left alone, so
that a run which is started again ends in what an undisturbed one gives, and mends what was damaged meanwhile.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from backbones.data.tar import Section
from backbones.errors import DataError
from backbones.progress import progress_bar

LARGEST_PICTURE = 2**27  # bytes
_CHUNK = 2**20


class Readable(Protocol):
    """What gives the content of a file bit by bit."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes at most, none at the end."""
        ...


@contextmanager
def open_archive(archive: Path) -> Iterator[Section]:
    """A file as a whole, to be read in order. Raises DataError if it can't be opened."""
    check_is_file(archive)
    try:
        file = archive.open("rb")
    except OSError as error:
        raise DataError(f"{archive}: can't be read ({error.strerror})") from error
    with file:
        yield Section(file, os.fstat(file.fileno()).st_size, str(archive))


def check_is_file(archive: Path) -> None:
    """Raises DataError if there is no such file."""
    if not archive.is_file():
        raise DataError(f"{archive}: {'not a file' if archive.exists() else 'no such file'}: name an archive")


class Unpacking:
    """A folder into which files are put whole or not at all, by one command at a time.

    Args:
        folder: made where it is not there.
        partial: what the file that is being written is called until then, in the same file system.
        total: how much there is to read, in bytes, for the bar.
        description: what the bar is called.
    """

    def __init__(self, folder: Path, partial: Path, total: int, description: str):
        self.folder = folder
        self._partial = partial
        self._total = total
        self._description = description
        self._made: set[Path] = set()

    def __enter__(self) -> "Unpacking":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{self.folder}: can't be written ({error.strerror})") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise DataError(
                f"{self.folder}: another prepare_data.py is at work there: wait for it, or end it"
            ) from error
        except OSError:  # a file system without locks
            pass
        self._bar = progress_bar(total=self._total, unit="B", scaled=True, description=self._description)
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.close()
        self._partial.unlink(missing_ok=True)
        os.close(self._lock)

    def put(self, name: str, size: int, data: Readable) -> bool:
        """Writes `folder/name`, unless it is there with the same content.

        Args:
            name: a path below the folder, already found to lead nowhere else.
            size: of the whole content, in bytes.
            data: the content.

        Returns:
            Whether it was written.

        Raises:
            DataError: it can't be written, or the content can't be read.
        """
        path = self.folder / name
        try:
            same, chunk = _compare(path, size, data)
            if same == size:
                return False
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent)
            with self._partial.open("wb") as file:
                if same:  # `data` can't be read again
                    with path.open("rb") as there:
                        while same and (known := there.read(min(same, _CHUNK))):
                            same -= file.write(known)
                file.write(chunk)
                while chunk := data.read(_CHUNK):
                    file.write(chunk)
            os.replace(self._partial, path)
        except OSError as error:
            raise DataError(
                f"{path}: can't be written ({error.strerror}); mend that and start again: what is there stays"
            ) from error
        return True

    def show(self, done: int) -> None:
        """Moves the bar: so much has been read, in bytes."""
        self._bar.update(done - self._bar.n)


def describe_size(size: int) -> str:
    """A number of bytes as text."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _compare(path: Path, size: int, data: Readable) -> tuple[int, bytes]:
    """How many bytes of a file are known to be those of `data`, and what has been read of `data` beyond them."""
    same = 0
    if _has_size(path, size):
        with path.open("rb") as there:
            while chunk := data.read(_CHUNK):
                if there.read(len(chunk)) != chunk:
                    return same, chunk
                same += len(chunk)
    return same, b""


def _has_size(path: Path, size: int) -> bool:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size
