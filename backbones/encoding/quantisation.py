"""Product quantisation of vectors and of their residuals (Jégou et al., 2011), of which 2.1 says that it is better."""

from dataclasses import dataclass

import numpy as np

from backbones.encoding.code_books import Centres, fit_centres
from backbones.errors import ConfigError

PARTS = 8  # of a vector
BITS = 8  # for each part


@dataclass(frozen=True)
class Distortion:
    """What of the variance of vectors is lost, in percent, by codes of as many bits.

    Args:
        original: each of `PARTS` parts of a vector is replaced by the nearest of 2^BITS centres of its own.
        residual: so are the parts of its residual to the nearest of 2^PARTS centres, by one of 2^(BITS - 1).
    """

    original: float
    residual: float


def check_quantisation(dimensions: int, sample: int) -> None:
    """Finds out whether vectors of so many dimensions can be quantised, with that many to learn from.

    Raises:
        ConfigError: they can't.
    """
    if dimensions % PARTS:
        raise ConfigError(f"dimensions {dimensions}: quantise needs a multiple of {PARTS}")
    if sample < 2**BITS:
        raise ConfigError(f"sample {sample}: quantise needs {2**BITS} or more")


def distortion(sample: np.ndarray, vectors: np.ndarray, seed: int) -> Distortion:
    """Learns centres from a sample (S, D), and quantises other vectors (N, D) with and without residuals.

    Both codes have PARTS * BITS bits: what the nearest centre takes, the parts of the residual lack.
    """
    coarse = _fit(sample, 2**PARTS, seed)
    near, sample_near = (coarse.centres[coarse.nearest(x)] for x in (vectors, sample))
    original = quantise_parts(sample, vectors, 2**BITS, seed)
    residual = near + quantise_parts(sample - sample_near, vectors - near, 2 ** (BITS - 1), seed)
    return Distortion(_lost(vectors, original), _lost(vectors, residual))


def quantise_parts(sample: np.ndarray, vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Vectors (N, D), each of whose `PARTS` parts is the nearest of `count` centres of those of the sample (S, D)."""
    quantised = []
    for known, part in zip(np.split(sample, PARTS, axis=1), np.split(vectors, PARTS, axis=1), strict=True):
        book = _fit(known, count, seed)
        quantised.append(book.centres[book.nearest(part)])
    return np.concatenate(quantised, axis=1)


def _fit(sample: np.ndarray, count: int, seed: int) -> Centres:
    """`count` centres, or as many as there are different vectors."""
    return fit_centres(sample, min(count, len(np.unique(sample, axis=0))), seed)


def _lost(vectors: np.ndarray, quantised: np.ndarray) -> float:
    return 100 * float(((vectors - quantised) ** 2).sum() / ((vectors - vectors.mean(0)) ** 2).sum())
