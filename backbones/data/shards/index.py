"""What lies where in the shards of a split: one small file of plain arrays beside them.

Shard k is `shard-<k, six digits>.tar`. Pictures are numbered shard after shard, in the order in which they lie there.
N pictures, S shards, C classes.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from backbones.data.unpacking import LARGEST_PICTURE
from backbones.engine.checkpoint import write_atomically
from backbones.errors import DataError

INDEX = "index.safetensors"
LARGEST_INDEX = 2**36  # bytes
_AGAIN = "make the shards anew with prepare_data.py shards"
_LARGEST_SHARD = 2**50
_BLOCK = 512  # bytes of a header in a tar file, which comes before each picture


@dataclass(frozen=True)
class ShardIndex:
    """Where each picture lies. Arrays only: objects would grow in every data-loading process.

    Args:
        class_names: (C).
        shard_sizes: (S,) int64, in bytes.
        shard_digests: (S, 32) uint8, SHA-256 of each shard.
        pictures_by_shard: (S,) int64, how many pictures each holds.
        offsets: (N,) int64, where each picture's file begins in its shard.
        lengths: (N,) int32, its bytes.
        labels: (N,) int32.
        name_ends: (N,) int64, where each picture's name ends in `names`.
        names: uint8, all names (`<class>/<file>`) one after the other. They are for messages only.
    """

    class_names: list[str]
    shard_sizes: np.ndarray
    shard_digests: np.ndarray
    pictures_by_shard: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    name_ends: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def ends(self) -> np.ndarray:
        """(S,) int64: the number of the first picture after each shard."""
        return self.pictures_by_shard.cumsum()

    def name(self, picture: int) -> str:
        """The name of a picture, `<class>/<file>`."""
        start = self.name_ends[picture - 1] if picture else 0
        return self.names[start : self.name_ends[picture]].tobytes().decode("utf8", "surrogateescape")

    def digest(self) -> str:
        """Of all pictures' bytes and places."""
        digest = hashlib.sha256()
        for array in (self.shard_digests, self.pictures_by_shard, self.offsets, self.lengths):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


_DTYPES = {
    "shard_sizes": np.int64,
    "shard_digests": np.uint8,
    "pictures_by_shard": np.int64,
    "offsets": np.int64,
    "lengths": np.int32,
    "labels": np.int32,
    "name_ends": np.int64,
    "names": np.uint8,
}


def shard_name(shard: int) -> str:
    """The file name of a shard. It is never read from a file, so none can lead elsewhere."""
    return f"shard-{shard:06d}.tar"


def save_index(path: Path, index: ShardIndex) -> None:
    """Writes an index, whole or not at all. Raises OSError."""
    arrays = {name: np.ascontiguousarray(getattr(index, name), dtype) for name, dtype in _DTYPES.items()}
    texts = {"class_names": json.dumps(index.class_names)}
    write_atomically(path, lambda temporary: save_file(arrays, temporary, texts))


def parse_index(content: bytes, source: str) -> ShardIndex:
    """Reads the content of an index file, which is nothing to be trusted.

    Args:
        source: what to call it in messages.

    Raises:
        DataError: it is no index, or places what it lists outside of the shards.
    """
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        class_names = json.loads(header["__metadata__"]["class_names"])
        arrays = {name: arrays[name] for name in _DTYPES}
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{source}: not an index of shards ({' '.join(str(error).split())[:150]}); {_AGAIN}") from error
    if problem := _problem(class_names, arrays):
        raise DataError(f"{source}: {problem}; {_AGAIN}")
    return ShardIndex(class_names, **arrays)


def _problem(class_names: object, arrays: dict[str, np.ndarray]) -> str | None:
    """What is wrong with an index, if anything is."""
    if not (isinstance(class_names, list) and class_names and all(isinstance(name, str) for name in class_names)):
        return "its class_names are no list of names"
    try:
        "".join(class_names).encode("utf8", "surrogateescape")
    except UnicodeEncodeError:
        return "its class_names are no text"
    if len(set(class_names)) < len(class_names):
        return "it has the same class twice"
    shards, pictures = (len(arrays[name]) if arrays[name].ndim else 0 for name in ("pictures_by_shard", "offsets"))
    shapes: dict[str, tuple[int, ...]] = {name: (shards,) if "shard" in name else (pictures,) for name in _DTYPES}
    shapes |= {"shard_digests": (shards, 32), "names": (arrays["names"].size,)}
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype or arrays[name].shape != shapes[name]:
            return f"its {name} are not {np.dtype(dtype)} of shape {shapes[name]}"
    sizes, counts, ends = (arrays[name] for name in ("shard_sizes", "pictures_by_shard", "name_ends"))
    if not pictures:
        return "it lists no pictures"
    if counts.min() < 1 or counts.max() > pictures or counts.sum() != pictures:
        return f"its shards do not hold the {pictures:,} pictures that it lists"
    if sizes.min() < 1 or sizes.max() > _LARGEST_SHARD:
        return "a shard has an impossible size"
    size = np.repeat(sizes, counts)
    outside = (arrays["offsets"] < _BLOCK) | (arrays["offsets"] > size)
    outside |= (arrays["lengths"] < 1) | (arrays["lengths"] > LARGEST_PICTURE)
    outside |= arrays["lengths"] > size - arrays["offsets"]
    if outside.any():
        return f"picture {int(outside.argmax())} lies outside of its shard"
    if arrays["labels"].min() < 0 or arrays["labels"].max() >= len(class_names):
        return f"a label is none of its {len(class_names)} classes"
    if (np.diff(ends, prepend=0) < 0).any() or ends[0] < 0 or ends[-1] != len(arrays["names"]):
        return "its names are not as long as it says"
    return None
