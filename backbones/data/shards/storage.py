"""Where shards lie: a local folder, or object storage behind a URL (fsspec knows s3, gs, http and many more)."""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK

from backbones.errors import ConfigError, DataError
from backbones.regular import read_regular_file

T = TypeVar("T")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CHUNK = 2**22  # bytes
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # with these only writing fails, and always will
_WAITS = (1.0, 5.0)  # seconds before a storage that failed is asked again


def is_url(root: str) -> bool:
    """Whether data lie behind a URL, not in a local folder."""
    return _URL.match(root) is not None


def join(root: str, *names: str) -> str:
    """A place below a folder or URL."""
    return "/".join([root.rstrip("/") if is_url(root) else str(Path(root)), *names])


def read_small_file(place: str, *, largest: int) -> bytes:
    """The content of a file.

    Raises:
        ConfigError: the library for that kind of storage is missing.
        DataError: it can't be read, or is larger than `largest` bytes.
    """
    if not is_url(place):
        try:
            return read_regular_file(place, largest=largest)
        except OSError as error:
            raise DataError(f"{place}: can't be read ({error.strerror})") from error
    size = file_size(place)
    if size is None:
        content = ask_storage(place, lambda files, path: b"".join(read_chunks(files, path, largest + 1)))
        size = len(content)
    elif size <= largest:
        content = ask_storage(place, lambda files, path: files.cat_file(path))
    if size > largest:
        raise DataError(f"{place}: larger than {largest:,} bytes, as no such file is")
    return content


def file_size(place: str) -> int | None:
    """In bytes, where the storage tells. Raises as `read_small_file` does."""
    return ask_storage(place, lambda files, path: files.info(path).get("size"))


def copy_file(place: str, target: Path) -> None:
    """Copies a file of any storage to the local disk.

    Raises:
        OSError: `target` can't be written.
        ConfigError, DataError: as `read_small_file` does.
    """
    target.touch()  # fails here and not as if the storage did
    ask_storage(place, lambda files, path: files.get_file(path, str(target), callback=DEFAULT_CALLBACK))


def read_chunks(files: Any, path: str, most: int) -> Iterator[bytes]:
    """The content of a file of a storage in order, up to so many bytes."""
    with files.open(path, "rb") as file:
        while most and (chunk := file.read(min(most, _CHUNK))):
            yield chunk
            most -= len(chunk)


def ask_storage(place: str, question: Callable[[Any, str], T]) -> T:
    """Asks a storage, and again when it fails: with a thousand clients some request always does.

    Args:
        question: what to do with fsspec's file system and the path there; from the beginning, each time it is asked.

    Raises:
        OSError: a local disk is full.
        ConfigError, DataError: as `read_small_file` does.
    """
    for wait in (*_WAITS, None):
        try:
            # Made anew each time (fsspec remembers): a process must not use the connections of the one it came from.
            files, path = fsspec.url_to_fs(place) if is_url(place) else _local(place)
            return question(files, path)
        except FileNotFoundError as error:
            raise DataError(f"{place}: no such file") from error
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{place}: this storage can't be used ({' '.join(str(error).split())})") from error
        except Exception as error:  # each storage has errors of its own
            if isinstance(error, OSError) and error.errno in _WRITING:
                raise
            if wait is None:
                raise DataError(f"{place}: can't be read ({' '.join(str(error).split())[:200]})") from error
            time.sleep(wait)
    raise AssertionError


def _local(path: str) -> tuple[Any, str]:
    """As `url_to_fs`, which would take some characters of a path for a URL's."""
    return fsspec.filesystem("file"), os.path.abspath(path)
