"""Code books: centres by k-means and Gaussian mixtures, and which of their entries a patch belongs to.

Patches are (..., P, D): P vectors of D numbers for each picture. A code book has K entries; an assignment
(..., P, K) says how much of a patch each of them has, in all 1.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from backbones.errors import ConfigError

_ITERATIONS = 100


@dataclass(frozen=True)
class Centres:
    """Entries of a k-means code book.

    Args:
        centres: (K, D).
        sharpness: of soft assignment, 1 / squared distance: the larger, the harder.
    """

    centres: np.ndarray
    sharpness: float

    def squared_distances(self, patches: np.ndarray) -> np.ndarray:
        """(..., P, K), but for what is alike for all centres of a patch: its own squared length."""
        return (self.centres**2).sum(1) - 2 * patches @ self.centres.T

    def nearest(self, patches: np.ndarray) -> np.ndarray:
        """The place (..., P) of the centre that is nearest to a patch."""
        return self.squared_distances(patches).argmin(-1)

    def hard(self, patches: np.ndarray) -> np.ndarray:
        """The nearest centre has all of a patch."""
        return np.eye(len(self.centres), dtype=patches.dtype)[self.nearest(patches)]

    def soft(self, patches: np.ndarray) -> np.ndarray:
        """Near centres share a patch: the softmax of squared distances times -sharpness."""
        return _softmax(-self.sharpness * self.squared_distances(patches))


@dataclass(frozen=True)
class Mixture:
    """A mixture of K Gaussians with diagonal covariances.

    Args:
        weights: (K,), in all 1.
        means: (K, D).
        deviations: (K, D), standard ones.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def posteriors(self, patches: np.ndarray) -> np.ndarray:
        """The probability that a patch was drawn from each Gaussian."""
        precisions = self.deviations**-2
        squares = patches**2 @ precisions.T - 2 * patches @ (self.means * precisions).T
        constants = np.log(self.weights) - np.log(self.deviations).sum(1) - (self.means**2 * precisions).sum(1) / 2
        return _softmax(constants - squares / 2)


def fit_centres(sample: np.ndarray, count: int, seed: int) -> Centres:
    """k-means of a sample of patches (S, D).

    Soft assignment is as sharp as that of `count` round Gaussians of equal weight, whose variance is that of the sample
    around its centres.

    Raises:
        ConfigError: the sample has fewer different patches.
    """
    _check_different(sample, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(count, n_init=1, max_iter=_ITERATIONS, random_state=seed).fit(sample)
    variance = fitted.inertia_ / sample.size
    # Where each patch is a centre, soft assignment is hard: as sharp as numbers allow.
    sharpness = 1 / (2 * max(variance, float(np.finfo(np.float32).tiny) ** 0.5))
    return Centres(fitted.cluster_centers_.astype(sample.dtype), sharpness)


def fit_mixture(sample: np.ndarray, count: int, seed: int) -> Mixture:
    """A mixture of `count` Gaussians of a sample of patches (S, D): expectation-maximisation, started by k-means.

    Raises:
        ConfigError: the sample has fewer different patches.
    """
    _check_different(sample, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = GaussianMixture(count, covariance_type="diag", max_iter=_ITERATIONS, random_state=seed)
        mixture.fit(sample.astype(np.float64))
    fields = (mixture.weights_, mixture.means_, np.sqrt(mixture.covariances_))
    return Mixture(*(values.astype(sample.dtype) for values in fields))


def _check_different(sample: np.ndarray, count: int) -> None:
    different = len(np.unique(sample, axis=0))
    if count > different:
        raise ConfigError(f"centres {count}: the sample has {different} different patches; give at most as many")


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
