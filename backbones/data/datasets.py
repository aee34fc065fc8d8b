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
    """

    class_names: list[str]
    labels: np.ndarray
    picture: Callable[[int], Image.Image]
    name: Callable[[int], str]
    identity: str

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """A short digest of names, labels and identity (not of the pixels)."""
        digest = hashlib.sha256("\n".join([self.identity, *self.class_names]).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]
