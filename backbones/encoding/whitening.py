"""Whitening: vectors of many channels as fewer numbers, uncorrelated and of variance 1."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.decomposition import PCA

from backbones.errors import ConfigError

Origin = Literal["mean", "zero"]
_NO_VARIANCE = 1e-9  # of the largest


@dataclass(frozen=True)
class Whitening:
    """Brings vectors of C channels to D uncorrelated numbers of variance 1.

    Args:
        origin: (C,), what becomes 0.
        directions: (D, C), principal components divided by their deviations.
    """

    origin: np.ndarray
    directions: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(..., C) to (..., D)."""
        return (vectors - self.origin) @ self.directions.T


def fit_whitening(sample: np.ndarray, dimensions: int, origin: Origin) -> Whitening:
    """From the principal components of a sample of vectors (S, C).

    Args:
        dimensions: D.
        origin: of the whitened vectors: the sample's mean, or zero, that is the network's own. Residuals are the same
            with both, the vectors themselves are not.

    Raises:
        ConfigError: the sample does not vary in so many directions.
    """
    most = min(sample.shape)
    if dimensions <= most:
        with np.errstate(invalid="ignore"):  # where all are alike
            pca = PCA(dimensions, svd_solver="covariance_eigh").fit(sample.astype(np.float64))
        most = int((pca.explained_variance_ > _NO_VARIANCE * pca.explained_variance_[0]).sum())
    if dimensions > most:
        raise ConfigError(
            f"dimensions {dimensions}: the sample of patches varies in only {most} directions; give no more"
        )
    directions = pca.components_ / np.sqrt(pca.explained_variance_)[:, None]
    start = pca.mean_ if origin == "mean" else np.zeros_like(pca.mean_)
    return Whitening(start.astype(sample.dtype), directions.astype(sample.dtype))
