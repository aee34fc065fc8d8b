"""Data sets for classification: one small class, made by a reader for each layout."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass
class ClassificationDataset:
    """Labelled pictures.

    Args:
        class_names: label k is class_names[k].
        labels: (N,) int64.
        picture: the RGB picture at a place.
        name: what to call the picture at a place in messages (its file).
        identity: names what the set holds; two sets with the same identity, labels and classes count as the same data.
        pixels: (N, H, W, 3) uint8, all pictures, where they have one size and lie in memory.
        official: whether these are the files of a published data set, to the byte; None where that is not known.
        encoded: the file at a place, as it is (JPEG, PNG, ...), where pictures are files.
        pictures_by_shard: (S,) int64, how many pictures stand together in each shard, where they lie in shards.
        shard_sizes: (S,) int64, likewise, in bytes.
    """

    class_names: list[str]
    labels: np.ndarray
    picture: Callable[[int], Image.Image]
    name: Callable[[int], str]
    identity: str
    pixels: np.ndarray | None = None
    official: bool | None = None
    encoded: Callable[[int], bytes] | None = None
    pictures_by_shard: np.ndarray | None = None
    shard_sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def center_views(self, size: int, shorter: int | None) -> np.ndarray | None:
        """(N, size, size, 3): what `center_crop` shows of the pictures, where those are the pictures as they are."""
        as_they_are = self.pixels is not None and self.pixels.shape[1:3] == (size, size) and shorter in (None, size)
        return self.pixels if as_they_are else None

    def fingerprint(self) -> str:
        """A short digest of names, labels and identity."""
        names = "\n".join([self.identity, *self.class_names])
        digest = hashlib.sha256(names.encode("utf8", "surrogateescape"))  # names of folders may be no UTF-8
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]
