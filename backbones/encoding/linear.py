"""Linear classification of fixed vectors: ridge regression of which class a picture is of, solved in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve

from backbones.errors import DataError

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Among which the weight of the squared errors against the weights' squared length is chosen."""
_HELD_OUT = 5  # each fifth training picture chooses
_FEWEST = 10  # training pictures


@dataclass(frozen=True)
class LinearResult:
    """How well classes are told apart by linear functions of vectors.

    Args:
        top1_error: of the test pictures, in percent.
        strength: the one chosen of `STRENGTHS`.
    """

    top1_error: float
    strength: float


def linear_error(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> LinearResult:
    """Trains ridge regression on vectors (N, L) with labels (N,), and tests it on others.

    The strength is the one of `STRENGTHS` with the fewest errors on each fifth training picture after training on the
    rest (the smallest of equals); the test pictures have no say in it.

    Raises:
        DataError: too few training pictures.
    """
    check_labels(train_labels)
    held_out = np.arange(len(train)) % _HELD_OUT == _HELD_OUT - 1
    parts = (train[~held_out], train_labels[~held_out], train[held_out], train_labels[held_out])
    strength = STRENGTHS[int(np.argmin(_errors(*parts, STRENGTHS)))]
    [error] = _errors(train, train_labels, test, test_labels, [strength])
    return LinearResult(error, strength)


def check_labels(labels: np.ndarray) -> None:
    """Finds out whether these training labels (N,) are enough to learn from.

    Raises:
        DataError: they are too few, or of one class.
    """
    if len(labels) < _FEWEST:
        raise DataError(f"linear classification needs {_FEWEST} training pictures or more, not {len(labels)}")
    if len(np.unique(labels[np.arange(len(labels)) % _HELD_OUT != _HELD_OUT - 1])) < 2:
        raise DataError("linear classification needs training pictures of two classes or more")


def _errors(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, strengths: Sequence[float]
) -> list[float]:
    """Top-1 errors in percent with each strength.

    Every class has a linear function with an offset, which is to be 1 for its pictures and 0 for others. No solver
    stops early here: the equations are linear, in the numbers of a vector or in the pictures, whichever are fewer.
    """
    classes = np.unique(train_labels)
    targets = (train_labels[:, None] == classes).astype(np.float64)
    train, test = train.astype(np.float64), test.astype(np.float64)
    train, test, centred = train - train.mean(0), test - train.mean(0), targets - targets.mean(0)
    few_pictures = len(train) < train.shape[1]
    products = train @ train.T if few_pictures else train.T @ train
    wanted = centred if few_pictures else train.T @ centred
    errors = []
    for strength in strengths:
        weights = solve(products + np.eye(len(products)) / strength, wanted, assume_a="pos")
        scores = test @ (train.T @ weights if few_pictures else weights) + targets.mean(0)
        errors.append(100 * float((classes[scores.argmax(1)] != test_labels).mean()))
    return errors
