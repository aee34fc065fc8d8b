"""Where shards lie: a local folder, or object storage behind a URL (fsspec knows s3, gs, http and many more)."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK

from backbones.data.regular import read_regular_file
from backbones.errors import ConfigError, DataError

T = TypeVar("T")
_WAITS = (1.0, 5.0)  # seconds before a storage that failed is asked again


def is_url(root: str) -> bool:
    """Whether data lie behind a URL, not in a local folder."""
    return "://" in root


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
    if size is not None and size > largest:
        raise DataError(f"{place}: larger than {largest:,} bytes, as no such file is")
    return _ask(place, lambda files, path: files.cat_file(path))


def file_size(place: str) -> int | None:
    """In bytes, where the storage tells. Raises as `read_small_file` does."""
    return _ask(place, lambda files, path: files.info(path).get("size"))


def copy_file(place: str, target: Path) -> None:
    """Copies a file of any storage to the local disk. Raises as `read_small_file` does."""
    _ask(place, lambda files, path: files.get_file(path, str(target), callback=DEFAULT_CALLBACK))


def open_file(place: str) -> Any:
    """A file of any storage, to be read in order. Raises as `read_small_file` does."""
    return _ask(place, lambda files, path: files.open(path, "rb"))


def _ask(place: str, question: Callable[[Any, str], T]) -> T:
    """Asks a storage, and again when it fails: with a thousand clients some request always does."""
    for wait in (*_WAITS, None):
        try:
            # Made anew each time (fsspec remembers): a process must not use the connections of the one it came from.
            files, path = fsspec.url_to_fs(place)
            return question(files, path)
        except FileNotFoundError as error:
            raise DataError(f"{place}: no such file") from error
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{place}: this storage can't be used ({' '.join(str(error).split())})") from error
        except Exception as error:  # each storage has errors of its own
            if wait is None:
                raise DataError(f"{place}: can't be read ({' '.join(str(error).split())[:200]})") from error
            time.sleep(wait)
    raise AssertionError
