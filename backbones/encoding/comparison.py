"""Encodings by what they are good for: retrieval among the test pictures, and linear classification."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backbones.encoding.code_books import CodeBooks, fit_centres, fit_mixture
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
        strength: the C that linear classification chose.
        encode_seconds: for all training and test pictures.
    """

    encoding: str
    kind: Literal["residual", "plain", "pooled"]
    centres: int | None
    code_book: int | None
    normalisation: Normalisation
    length: int
    retrieval_mAP: float
    top1_error: float
    strength: float
    encode_seconds: float


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

    def pooled(self) -> Iterator[Row]:
        """The rows of the features that need no code book."""
        for name in ("pooled", "average"):
            vectors = [getattr(split.features, name)[:, None] for split in (self.train, self.test)]
            yield from self._rows(vectors, 0.0, encoding=name, kind="pooled", centres=None, code_book=None)

    def encoded(self, names: Sequence[EncodingName], centres: int, sample: int, seed: int) -> Iterator[Row]:
        """The rows of some encodings with one code book.

        Args:
            names: of encodings.
            centres: the size of the code book.
            sample: how many of the training patches it is fitted to.
            seed: of the sample and the fit.

        Raises:
            ConfigError: fewer different patches than centres.
        """
        patches = draw_patches(self.train.features.patches, sample, seed)
        books = CodeBooks(fit_centres(patches, centres, seed), fit_mixture(patches, centres, seed))
        for name in names:
            start = time.perf_counter()
            vectors = [encode(ENCODINGS[name], split.features.patches, books) for split in (self.train, self.test)]
            seconds = time.perf_counter() - start
            kind = ENCODINGS[name].kind
            yield from self._rows(vectors, seconds, encoding=name, kind=kind, centres=centres, code_book=seed)

    def quantised(self, sample: int, seed: int) -> Distortion:
        """What product quantisation loses of `sample` test patches, learnt from as many training patches."""
        train, test = (draw_patches(split.features.patches, sample, seed) for split in (self.train, self.test))
        return distortion(train, test, seed)

    def _rows(self, vectors: Sequence[np.ndarray], seconds: float, **facts: object) -> Iterator[Row]:
        for how in self.normalisations:
            train, test = (normalise(part, how) for part in vectors)
            linear = linear_error(train, self.train.labels, test, self.test.labels)
            yield Row(
                **facts,  # type: ignore[arg-type]
                normalisation=how,
                length=test.shape[1],
                retrieval_mAP=retrieval_map(test, self.test.labels),
                top1_error=linear.top1_error,
                strength=linear.strength,
                encode_seconds=round(seconds, 2),
            )


def encode(encoding: Encoding, patches: np.ndarray, books: CodeBooks) -> np.ndarray:
    """The encodings (N, blocks, L) of the pictures' patches (N, P, D)."""
    parts = range(0, len(patches), _PICTURES)
    return np.concatenate([encoding.encode(patches[start : start + _PICTURES], books) for start in parts])
