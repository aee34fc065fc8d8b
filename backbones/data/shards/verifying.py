"""Whether shards are still what was written."""

import hashlib
from functools import partial
from typing import Any

from backbones.data.shards.index import ShardIndex, shard_name
from backbones.data.shards.reading import read_index
from backbones.data.shards.storage import ask_storage, file_size, join, read_chunks
from backbones.errors import DataError
from backbones.progress import progress_bar


def verify_split(root: str, split: str) -> ShardIndex:
    """Compares the content of each shard with its digest.

    Raises:
        DataError: the index or a shard is missing, or is another than was written.
    """
    index = read_index(root, split)
    done = 0
    with progress_bar(total=int(index.shard_sizes.sum()), unit="B", scaled=True, description=split) as bar:
        for shard, (size, expected) in enumerate(zip(index.shard_sizes.tolist(), index.shard_digests, strict=True)):
            place = join(root, split, shard_name(shard))
            found = file_size(place)
            if found in (None, size):  # else there is no need to read it
                found, digest = ask_storage(place, partial(_digest, size=size, bar=bar, done=done))
            if found != size:
                raise DataError(f"{place}: has not the {size:,} bytes that the index says: copy or write it anew")
            if digest != expected.tobytes():
                raise DataError(f"{place}: is not what the index says (SHA-256): copy or write it anew")
            done += size
    return index


def _digest(files: Any, path: str, *, size: int, bar: Any, done: int) -> tuple[int, bytes]:
    """How long a file is, read to one byte more than `size` at most, and its digest."""
    digest, found = hashlib.sha256(), 0
    bar.update(done - bar.n)  # backwards, where reading it failed before
    for chunk in read_chunks(files, path, size + 1):
        digest.update(chunk)
        found += len(chunk)
        bar.update(len(chunk))
    return found, digest.digest()
