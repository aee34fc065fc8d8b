"""Retrieval: each picture asks for the others of its class, the most similar first."""

import numpy as np

from backbones.encoding.normalisation import unit_length
from backbones.errors import DataError

_QUERIES = 256  # at a time


def average_precisions(similarities: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Average precision (Q,) of each query in 0..1, not interpolated.

    It is the mean, over the relevant pictures, of the precision among all pictures that are at least as similar: the
    order of equally similar ones does not matter.

    Args:
        similarities: (Q, N).
        relevant: (Q, N) bool, with at least one in each row.
    """
    order = np.argsort(-similarities, axis=1)
    similarities, relevant = (np.take_along_axis(table, order, 1) for table in (similarities, relevant))
    ranks = np.arange(1, similarities.shape[1] + 1)
    precision = relevant.cumsum(1) / ranks
    # Where the pictures that are as similar as this one end: the next place before a smaller similarity.
    ends = np.where(np.diff(similarities, axis=1, append=-np.inf) < 0, ranks - 1, len(ranks))
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return (relevant * np.take_along_axis(precision, ends, 1)).sum(1) / relevant.sum(1)


def retrieval_map(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision in percent, by cosine similarity; relevant are the other pictures of the query's class.

    A picture that is the only one of its class does not ask.

    Args:
        vectors: (N, L), a picture each.
        labels: (N,).

    Raises:
        DataError: no class has two pictures.
    """
    vectors, queries = unit_length(vectors), asking(labels)
    found = []
    for start in range(0, len(queries), _QUERIES):
        some = queries[start : start + _QUERIES]
        similarities = vectors[some] @ vectors.T
        relevant = labels[some][:, None] == labels
        itself = (np.arange(len(some)), some)
        similarities[itself], relevant[itself] = -2, False  # after all others
        found.append(average_precisions(similarities, relevant))
    return 100 * float(np.concatenate(found).mean())


def asking(labels: np.ndarray) -> np.ndarray:
    """The places of the pictures, with labels (N,), that ask: all but those that are the only ones of their class.

    Raises:
        DataError: no class has two pictures.
    """
    queries = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(queries) == 0:
        raise DataError("retrieval needs a class with two test pictures or more")
    return queries
