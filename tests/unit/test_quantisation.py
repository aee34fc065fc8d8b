"""Product quantisation against a loop, and where residuals help it."""

import numpy as np
import pytest

from backbones.encoding.quantisation import check_quantisation, distortion, quantise_parts
from backbones.errors import ConfigError


def test_each_part_becomes_the_nearest_centre_of_its_own() -> None:
    """A sample of as many different parts as centres: those are the centres."""
    rng = np.random.default_rng(0)
    sample, vectors = rng.normal(size=(6, 16)), rng.normal(size=(9, 16))
    quantised = quantise_parts(sample, vectors, 6, seed=0)
    for vector, codes in zip(vectors, quantised, strict=True):
        for part in range(8):
            some = slice(2 * part, 2 * part + 2)
            nearest = min(sample[:, some], key=lambda centre: np.linalg.norm(centre - vector[some]))
            np.testing.assert_allclose(codes[some], nearest, atol=1e-12)


def test_residuals_help_where_vectors_lie_in_clumps_and_not_where_parts_are_independent() -> None:
    """Clumps: alone, the parts spend their centres on them, which the nearest centre says for all parts at once.
    Independent parts: the bits that the nearest centre takes are missed."""
    rng = np.random.default_rng(0)
    clumps = (rng.normal(size=(100, 16)) * 10)[rng.integers(0, 100, 1000)] + rng.normal(size=(1000, 16))
    lost = distortion(clumps[:800], clumps[800:], seed=0)
    assert lost.residual < lost.original / 2
    scattered = rng.uniform(size=(1000, 8))
    lost = distortion(scattered[:800], scattered[800:], seed=0)
    assert lost.original < lost.residual


def test_the_share_lost_is_of_the_variance_and_knows_no_origin() -> None:
    rng = np.random.default_rng(1)
    sample, vectors = rng.normal(size=(300, 16)), rng.normal(size=(100, 16))
    lost, moved = distortion(sample, vectors, seed=0), distortion(7 * sample + 5, 7 * vectors + 5, seed=0)
    assert 0 < lost.original < 100
    assert moved.original == pytest.approx(lost.original, rel=0.05)
    assert moved.residual == pytest.approx(lost.residual, rel=0.05)


@pytest.mark.parametrize(("dimensions", "sample", "words"), [(12, 1000, "multiple of 8"), (16, 255, "256")])
def test_what_can_not_be_quantised(dimensions: int, sample: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_quantisation(dimensions, sample)


def test_fewer_different_vectors_than_centres_are_kept_as_they_are() -> None:
    vectors = np.repeat(np.random.default_rng(0).normal(size=(5, 8)), 60, axis=0)
    lost = distortion(vectors, vectors, seed=0)
    assert lost.original == pytest.approx(0, abs=1e-20)
    assert lost.residual == pytest.approx(0, abs=1e-20)
