"""Encodings of a picture's patches (2.1), each with residuals and, as its counterpart, with the vectors themselves.

All take patches (..., P, D) and a code book of K entries, and give (..., blocks, L): a block for each entry (for each
entry's mean and deviation in Fisher vectors). They are sums over patches, so that their order does not matter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from backbones.encoding.code_books import Centres, Mixture, fit_centres, fit_mixture


def vlad(patches: np.ndarray, centres: Centres, *, soft: bool = False) -> np.ndarray:
    """The sum of the residuals of each centre's patches to it (Jégou et al., 2010): (..., K, D).

    Args:
        soft: patches are shared among near centres, instead of belonging to the nearest.
    """
    assignment = _assign(patches, centres, soft)
    return _sums(assignment, patches) - assignment.sum(-2)[..., None] * centres.centres


def vlad_plain(patches: np.ndarray, centres: Centres, *, soft: bool = False) -> np.ndarray:
    """The sum of each centre's patches themselves: (..., K, D)."""
    return _sums(_assign(patches, centres, soft), patches)


def histogram(patches: np.ndarray, centres: Centres, *, soft: bool = False) -> np.ndarray:
    """The share of patches that each centre has, the bag of visual words: (..., K, 1)."""
    return _assign(patches, centres, soft).mean(-2)[..., None]


def fisher(patches: np.ndarray, mixture: Mixture) -> np.ndarray:
    """The Fisher vector (Perronnin et al., 2010): (..., 2K, D).

    The gradient of the patches' mean log likelihood with respect to the means and then to the deviations, each times
    deviation / sqrt(weight) and deviation / sqrt(2 weight): the Fisher information's normalisation. These are sums of
    the residuals z to the means, measured in deviations, and of z^2 - 1.
    """
    posteriors = mixture.posteriors(patches)
    mass = posteriors.sum(-2)[..., None]
    first, second = _powers(posteriors, patches, mixture)
    shift = mixture.means / mixture.deviations
    return _by_weight(first - mass * shift, second - 2 * shift * first + mass * (shift**2 - 1), patches, mixture)


def fisher_plain(patches: np.ndarray, mixture: Mixture) -> np.ndarray:
    """The Fisher vector with the patches themselves, measured in deviations, and their squares: (..., 2K, D)."""
    return _by_weight(*_powers(mixture.posteriors(patches), patches, mixture), patches, mixture)


def _assign(patches: np.ndarray, centres: Centres, soft: bool) -> np.ndarray:
    return centres.soft(patches) if soft else centres.hard(patches)


def _sums(assignment: np.ndarray, patches: np.ndarray) -> np.ndarray:
    return np.swapaxes(assignment, -1, -2) @ patches


def _powers(posteriors: np.ndarray, patches: np.ndarray, mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    first = _sums(posteriors, patches) / mixture.deviations
    return first, _sums(posteriors, patches**2) / mixture.deviations**2


def _by_weight(means: np.ndarray, deviations: np.ndarray, patches: np.ndarray, mixture: Mixture) -> np.ndarray:
    scale = 1 / (patches.shape[-2] * np.sqrt(mixture.weights)[:, None])
    return np.concatenate([means * scale, deviations * scale / np.sqrt(2).astype(patches.dtype)], axis=-2)


@dataclass(frozen=True)
class Encoding:
    """An encoding that can be asked for by name.

    Args:
        kind: of residuals or of the vectors themselves.
        fit: makes its code book from a sample of patches (S, D), the number of entries and a seed.
        encode: from patches and that code book.
    """

    kind: Literal["residual", "plain"]
    fit: Callable[[np.ndarray, int, int], Any]
    encode: Callable[[np.ndarray, Any], np.ndarray]


EncodingName = Literal[
    "vlad", "vlad_plain", "vlad_soft", "vlad_soft_plain", "fisher", "fisher_plain", "histogram", "histogram_soft"
]
ENCODINGS: dict[EncodingName, Encoding] = {
    "vlad": Encoding("residual", fit_centres, vlad),
    "vlad_plain": Encoding("plain", fit_centres, vlad_plain),
    "vlad_soft": Encoding("residual", fit_centres, partial(vlad, soft=True)),
    "vlad_soft_plain": Encoding("plain", fit_centres, partial(vlad_plain, soft=True)),
    "fisher": Encoding("residual", fit_mixture, fisher),
    "fisher_plain": Encoding("plain", fit_mixture, fisher_plain),
    "histogram": Encoding("plain", fit_centres, histogram),
    "histogram_soft": Encoding("plain", fit_centres, partial(histogram, soft=True)),
}
