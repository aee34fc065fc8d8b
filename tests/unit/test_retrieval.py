"""Retrieval and linear classification against plain implementations and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score

from backbones.encoding.linear import STRENGTHS, check_labels, linear_error
from backbones.encoding.retrieval import retrieval_map
from backbones.errors import DataError


def slow_map(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Each query's pictures sorted by cosine, precision at every relevant one; for vectors without equal cosines."""
    averages = []
    for query in range(len(vectors)):
        others = [i for i in range(len(vectors)) if i != query]

        def cosine(i: int, query: int = query) -> float:
            a, b = vectors[i], vectors[query]
            return float(a @ b) / float(np.sqrt(a @ a) * np.sqrt(b @ b))

        hits, precisions = 0, []
        for rank, i in enumerate(sorted(others, key=cosine, reverse=True), 1):
            if labels[i] == labels[query]:
                hits += 1
                precisions.append(hits / rank)
        if precisions:
            averages.append(sum(precisions) / len(precisions))
    return 100 * sum(averages) / len(averages)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 20), st.integers(2, 5), st.integers(1, 2), st.integers(0, 99))
def test_retrieval_is_a_loop_over_sorted_pictures(count, length, classes, seed) -> None:
    rng = np.random.default_rng(seed)
    vectors, labels = rng.normal(size=(count, length)), rng.integers(0, classes, count)
    assert retrieval_map(vectors, labels) == pytest.approx(slow_map(vectors, labels))


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 25), st.integers(0, 99))
def test_retrieval_is_scikit_learns_average_precision_where_pictures_are_alike_too(count, seed) -> None:
    """Vectors of few kinds: many similarities are equal to the bit."""
    rng = np.random.default_rng(seed)
    kinds = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]])
    vectors, labels = kinds[rng.integers(0, 4, count)], np.r_[0, 0, rng.integers(0, 3, count - 2)]
    expected = []
    for query in range(count):
        others = np.arange(count) != query
        relevant = labels[others] == labels[query]
        if relevant.any():
            expected.append(average_precision_score(relevant, vectors[others] @ vectors[query]))
    found = retrieval_map(vectors, labels)
    assert found == pytest.approx(100 * np.mean(expected))
    order = rng.permutation(count)
    assert retrieval_map(vectors[order], labels[order]) == pytest.approx(found)


def test_more_pictures_than_are_compared_at_a_time() -> None:
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(300, 3)), rng.integers(0, 3, 300)
    expected = [
        average_precision_score(np.delete(labels == labels[q], q), np.delete(unit @ unit[q], q))
        for unit in [vectors / np.linalg.norm(vectors, axis=1, keepdims=True)]
        for q in range(300)
    ]
    assert retrieval_map(vectors, labels) == pytest.approx(100 * np.mean(expected))


def test_retrieval_of_classes_apart_is_perfect_and_of_pictures_alike_is_chance() -> None:
    labels = np.repeat([0, 1, 2], 4)
    assert retrieval_map(np.eye(3)[labels] * np.arange(1, 13)[:, None], labels) == pytest.approx(100)
    assert retrieval_map(np.ones((12, 2)), labels) == pytest.approx(100 * 3 / 11)
    with pytest.raises(DataError, match="two test pictures"):
        retrieval_map(np.eye(3), np.arange(3))


def test_linear_classification() -> None:
    """Classes apart are told apart, also by their direction alone; labels at random are not learnt."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    vectors = np.eye(3)[labels] + 0.1 * rng.normal(size=(300, 3))
    assert linear_error(vectors[:200], labels[:200], vectors[200:], labels[200:]).top1_error == 0
    noise = rng.integers(0, 3, 100)
    assert linear_error(vectors[:200], labels[:200], vectors[200:], noise).top1_error == pytest.approx(66.7, abs=15)


@pytest.mark.parametrize("length", [5, 60])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_classification_is_scikit_learns_ridge_regression(length: int, dtype: type) -> None:
    """With fewer numbers than pictures and with more; classes have gaps and are of different sizes."""
    rng = np.random.default_rng(0)
    labels = np.array([1, 4, 4, 7])[rng.integers(0, 4, 90)]
    vectors = (rng.normal(size=(90, length)) + 2 + 0.5 * labels[:, None] * (np.arange(length) < 2)).astype(dtype)
    train, test = np.arange(90) < 50, np.arange(90) >= 50
    found = linear_error(vectors[train], labels[train], vectors[test], labels[test])
    assert found.strength in STRENGTHS
    ridge = Ridge(alpha=1 / found.strength).fit(
        vectors[train].astype(float), labels[train][:, None] == np.array([1, 4, 7])
    )
    classes = np.array([1, 4, 7])[ridge.predict(vectors[test].astype(float)).argmax(1)]
    assert found.top1_error == pytest.approx(100 * np.mean(classes != labels[test]))


def test_the_strength_is_chosen_by_training_pictures_held_out() -> None:
    """Noise in many dimensions wants little strength, a small certain difference beside a large doubtful one much."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 100)
    noisy = rng.normal(size=(200, 100)) + 0.35 * (2 * labels - 1)[:, None] * (np.arange(100) < 3)
    near = np.c_[np.where(rng.random(200) < 0.7, labels, 1 - labels), 0.008 * labels]
    for vectors, strengths in ((noisy, STRENGTHS[:3]), (near, STRENGTHS[-2:])):
        for tested in (labels, 1 - labels):
            assert linear_error(vectors, labels, vectors, tested).strength in strengths


@pytest.mark.parametrize(
    ("labels", "words"),
    [(np.tile([0, 1], 4), "10 training pictures or more, not 8"), (np.zeros(20, int), "two classes")],
)
def test_too_little_to_learn_from(labels: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_labels(labels)
