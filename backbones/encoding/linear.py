"""Linear classification of fixed vectors."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from backbones.errors import DataError

STRENGTHS = (1.0, 10.0, 100.0)
"""Among which C, the weight of the losses against the weights' squared length, is chosen."""
_HELD_OUT = 5  # each fifth training picture chooses C
_FEWEST = 10  # training pictures


@dataclass(frozen=True)
class LinearResult:
    """Args:
    top1_error: of the test pictures, in percent.
    strength: the C chosen.
    """

    top1_error: float
    strength: float


def linear_error(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> LinearResult:
    """Trains logistic regression on vectors (N, L) with labels (N,), and tests it on others.

    C is the one of `STRENGTHS` with the fewest errors on each fifth training picture after training on the rest (the
    smallest of equals); the test pictures have no say in it.

    Raises:
        DataError: too few training pictures.
    """
    check_labels(train_labels)
    held_out = np.arange(len(train)) % _HELD_OUT == _HELD_OUT - 1
    parts = (train[~held_out], train_labels[~held_out], train[held_out], train_labels[held_out])
    strength = min(STRENGTHS, key=lambda strength: _error(*parts, strength))
    return LinearResult(_error(train, train_labels, test, test_labels, strength), strength)


def check_labels(labels: np.ndarray) -> None:
    """Finds out whether these training labels (N,) are enough to learn from.

    Raises:
        DataError: they are too few, or of one class.
    """
    if len(labels) < _FEWEST:
        raise DataError(f"linear classification needs {_FEWEST} training pictures or more, not {len(labels)}")
    if len(np.unique(labels[np.arange(len(labels)) % _HELD_OUT != _HELD_OUT - 1])) < 2:
        raise DataError("linear classification needs training pictures of two classes or more")


def _error(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, strength: float
) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, tol=1e-3, max_iter=200).fit(train, train_labels)
    return 100 * float((model.predict(test) != test_labels).mean())
