"""Whether shards are still what was written."""

import hashlib
from typing import Any

from backbones.data.shards.index import ShardIndex, shard_name
from backbones.data.shards.reading import read_index
from backbones.data.shards.storage import join, open_file
from backbones.errors import DataError
from backbones.progress import progress_bar

_CHUNK = 2**22


def verify_split(root: str, split: str) -> ShardIndex:
    """Compares the content of each shard with its digest.

    Raises:
        DataError: the index or a shard is missing, or is another than was written.
    """
    index = read_index(root, split)
    total = int(index.shard_sizes.sum())
    with progress_bar(total=total, unit="B", scaled=True, description=split) as bar:
        for shard, expected in enumerate(index.shard_digests):
            place = join(root, split, shard_name(shard))
            try:
                with open_file(place) as file:
                    found = _digest(file, bar)
            except (OSError, ValueError) as error:
                raise DataError(f"{place}: can't be read ({error})") from error
            if found != expected.tobytes():
                raise DataError(f"{place}: is not what the index says (SHA-256): copy or write it anew")
    return index


def _digest(file: Any, bar: Any) -> bytes:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        bar.update(len(chunk))
    return digest.digest()
