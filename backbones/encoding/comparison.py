"""Encodings by what they are good for: retrieval among the test pictures, and linear classification."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from backbones.encoding.encodings import ENCODINGS, Encoding, EncodingName
from backbones.encoding.linear import linear_error
from backbones.encoding.normalisation import Normalisation, normalise
from backbones.encoding.patches import Features, draw_patches
from backbones.encoding.quantisation import Distortion, distortion
from backbones.encoding.retrieval import retrieval_map

_PICTURES = 256  # encoded at a time


@dataclass(frozen=True)
class Row:
    """A line of results.

    Args:
        encoding: its name; pooled and average are no encodings of patches.
        kind: whether it sums up residuals or the vectors themselves, or pools without a code book.
        centres: K; None where there is no code book.
        code_book: the seed of the code book, likewise.
        normalisation: of the encoding.
        length: of the vector.
        retrieval_mAP, top1_error: in percent.
        strength: what linear classification chose of `linear.STRENGTHS`.
        encode_seconds: for all training and test pictures.
    """

    encoding: str
    kind: Literal["residual", "plain", "pooled"]
    centres: int | None
    code_book: int | None
    normalisation: Normalisation = "l2"
    length: int = 0
    retrieval_mAP: float = math.nan
    top1_error: float = math.nan
    strength: float = math.nan
    encode_seconds: float = 0.0


@dataclass(frozen=True)
class Split:
    """Features of a split's pictures and their labels (N,)."""

    features: Features
    labels: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Measures encodings on two splits.

    Args:
        train: makes code books and linear classifiers.
        test: retrieved and classified.
        normalisations: each tried with each encoding.
    """

    train: Split
    test: Split
    normalisations: Sequence[Normalisation]

    def pooled(self) -> Iterator[list[Row]]:
        """The rows of each feature that needs no code book."""
        for name in ("pooled", "average"):
            vectors = [getattr(split.features, name)[:, None] for split in (self.train, self.test)]
            row = Row(name, "pooled", centres=None, code_book=None)
            yield self._measure(row, vectors)

    def encoded(self, names: Sequence[EncodingName], centres: int, sample: int, seed: int) -> Iterator[list[Row]]:
        """The rows of each of some encodings with one code book.

        Args:
            names: of encodings.
            centres: the size of the code book.
            sample: how many of the training patches it is fitted to.
            seed: of the sample and the fit.

        Raises:
            ConfigError: fewer different patches than centres.
        """
        patches = draw_patches(self.train.features.patches, sample, seed)
        books = {fit: fit(patches, centres, seed) for fit in dict.fromkeys(ENCODINGS[name].fit for name in names)}
        for name in names:
            encoding = ENCODINGS[name]
            start = time.perf_counter()
            vectors = [
                encode(encoding, split.features.patches, books[encoding.fit]) for split in (self.train, self.test)
            ]
            seconds = round(time.perf_counter() - start, 4)
            yield self._measure(Row(name, encoding.kind, centres, seed, encode_seconds=seconds), vectors)

    def quantised(self, sample: int, seed: int) -> Distortion:
        """What product quantisation loses of `sample` test patches, learnt from as many training patches."""
        train, test = (draw_patches(split.features.patches, sample, seed) for split in (self.train, self.test))
        return distortion(train, test, seed)

    def _measure(self, row: Row, vectors: Sequence[np.ndarray]) -> list[Row]:
        """That row with each normalisation, without intra where it repeats l2: one block, or blocks of one number."""
        rows = []
        alike = 1 in vectors[0].shape[1:]
        for how in self.normalisations:
            if how == "intra" and alike and "l2" in self.normalisations:
                continue
            train, test = (normalise(part, how) for part in vectors)
            linear = linear_error(train, self.train.labels, test, self.test.labels)
            rows.append(
                replace(
                    row,
                    normalisation=how,
                    length=test.shape[1],
                    retrieval_mAP=retrieval_map(test, self.test.labels),
                    top1_error=linear.top1_error,
                    strength=linear.strength,
                )
            )
        return rows


def encode(encoding: Encoding, patches: np.ndarray, book: Any) -> np.ndarray:
    """The encodings (N, blocks, L) of the pictures' patches (N, P, D)."""
    parts = range(0, len(patches), _PICTURES)
    return np.concatenate([encoding.encode(patches[start : start + _PICTURES], book) for start in parts])
