"""How vectors are brought to one scale."""

from typing import Literal

import numpy as np

Normalisation = Literal["l2", "power", "intra"]


def unit_length(x: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, divided by their L2 norms; zeros stay zeros."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)


def normalise(encodings: np.ndarray, how: Normalisation) -> np.ndarray:
    """Makes each picture's encoding one vector of unit length.

    Args:
        encodings: (N, blocks, L), a block for each centre.
        how: l2 does nothing else; power takes signed square roots before, which evens out patches that occur many times
            in a picture (Perronnin et al., 2010); intra brings each block to unit length before, so that no centre
            outweighs the others (Arandjelovic and Zisserman, 2013); blocks of a single number stay as they are.

    Returns:
        (N, blocks * L).
    """
    if how == "power":
        encodings = np.sign(encodings) * np.sqrt(np.abs(encodings))
    if how == "intra" and encodings.shape[2] > 1:
        encodings = unit_length(encodings)
    return unit_length(encodings.reshape(len(encodings), -1))
