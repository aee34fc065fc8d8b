"""A data set of shards: any picture by its number, read where it lies."""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from backbones.data.datasets import ClassificationDataset
from backbones.data.folder import unknown_class
from backbones.data.pictures import decode_image
from backbones.data.shards.cache import ShardCache
from backbones.data.shards.index import INDEX, LARGEST_INDEX, ShardIndex, parse_index, shard_name
from backbones.data.shards.storage import is_url, join, read_small_file
from backbones.errors import ConfigError, DataError

_OPEN = 256  # shards that a process has open: more than its streams use at a time, with their usual numbers


class _OpenShard:
    """A file that is closed when nobody needs it any more."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class Shards:
    """Reads pictures' files out of shards. Processes that are forked and threads may share one.

    Args:
        place: the folder or URL of the shards.
        index: what lies where.
        cache: where whole shards are fetched to; None reads them where they are, in a local folder.
    """

    def __init__(self, place: str, index: ShardIndex, cache: ShardCache | None):
        self.place, self.index, self.cache = place, index, cache
        self._ends = index.ends
        self._open = lru_cache(_OPEN)(self._open_shard)

    def shard_of(self, picture: int) -> int:
        """The shard that a picture lies in."""
        return int(np.searchsorted(self._ends, picture, side="right"))

    def read(self, picture: int) -> bytes:
        """A picture's file, byte for byte as it lies there: only a cache, or `verify_split`, notices other content.

        Raises:
            DataError: the shard is missing, or has not the size that the index says.
        """
        shard = self.shard_of(picture)
        opened = self._open(shard)
        offset, left = int(self.index.offsets[picture]), int(self.index.lengths[picture])
        parts = []
        while left:
            try:
                part = os.pread(opened.descriptor, left, offset)
            except OSError as error:
                raise DataError(f"{self._file(shard)}: can't be read ({error.strerror})") from error
            if not part:
                raise DataError(f"{self._file(shard)}: is cut off: copy it anew")
            parts.append(part)
            offset, left = offset + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def name(self, picture: int) -> str:
        """What to call a picture in messages."""
        return f"{self._file(self.shard_of(picture))}: {self.index.name(picture)}"

    def _file(self, shard: int) -> str:
        return join(self.place, shard_name(shard))

    def _open_shard(self, shard: int) -> _OpenShard:
        place, size = self._file(shard), int(self.index.shard_sizes[shard])
        if self.cache is not None:
            return _OpenShard(self.cache.open(place, size, self.index.shard_digests[shard].tobytes().hex()))
        try:
            # O_NONBLOCK: opening a pipe would wait for someone who writes.
            opened = _OpenShard(os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            raise DataError(f"{place}: can't be read ({error.strerror})") from error
        if (found := os.fstat(opened.descriptor).st_size) != size:
            raise DataError(
                f"{place}: has {found:,} bytes, the index says {size:,}: it is cut off or another's: copy it anew"
            )
        return opened


def read_index(root: str, split: str) -> ShardIndex:
    """The index of `<root>/<split>`, a folder or a URL.

    Raises:
        DataError: it is missing, or is none.
        ConfigError: the library for that kind of storage is missing.
    """
    place = join(root, split, INDEX)
    if not is_url(root) and not Path(place).exists():
        raise DataError(f"{place}: no such file (make shards with prepare_data.py shards)")
    return parse_index(read_small_file(place, largest=LARGEST_INDEX), place)


def read_shards(
    root: str, split: str, class_names: list[str] | None = None, *, cache: ShardCache | None = None
) -> ClassificationDataset:
    """The pictures of `<root>/<split>/shard-*.tar`.

    Args:
        root: a local folder, or a URL of object storage.
        class_names: the classes and their order; by default the shards' own.
        cache: where shards are fetched to; a URL needs it.

    Raises:
        ConfigError: a URL without a cache, or of a kind of storage whose library is missing.
        DataError: the index is missing or makes no sense, or a class is not in `class_names`.
    """
    if is_url(root) and cache is None:
        raise ConfigError(f"data.cache is missing: name a folder on a local disk, to fetch shards of {root} to")
    index = read_index(root, split)
    names = index.class_names if class_names is None else class_names
    if unknown := sorted(set(index.class_names) - set(names)):
        raise unknown_class(join(root, split), unknown[0], names)
    place_of = {name: label for label, name in enumerate(names)}
    labels = np.array([place_of[name] for name in index.class_names])[index.labels]
    shards = Shards(join(root, split), index, cache)
    return ClassificationDataset(
        names,
        labels,
        picture=lambda number: decode_image(shards.read(number), shards.name(number)),
        name=shards.name,
        identity=f"shards {split} {index.digest()}",
        encoded=shards.read,
        pictures_by_shard=index.pictures_by_shard,
        shard_sizes=index.shard_sizes,
    )
