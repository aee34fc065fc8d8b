"""Encodings of patches against loops, closed forms, gradients of the likelihood, and what residuals are for."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from backbones.encoding.code_books import Centres, Mixture, fit_centres, fit_mixture
from backbones.encoding.comparison import encode
from backbones.encoding.encodings import ENCODINGS, fisher, fisher_plain, histogram, vlad, vlad_plain
from backbones.encoding.normalisation import normalise, unit_length
from backbones.encoding.patches import draw_patches
from backbones.encoding.whitening import fit_whitening
from backbones.errors import ConfigError

RESIDUAL = ["vlad", "vlad_soft", "fisher"]
CASES = st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.integers(0, 999))


class CodeBooks(NamedTuple):
    """One of each kind."""

    centres: Centres
    mixture: Mixture

    def of(self, name: str) -> Centres | Mixture:
        """The one that an encoding takes."""
        return self.mixture if name.startswith("fisher") else self.centres


def draw(patches: int, dimensions: int, count: int, seed: int) -> tuple[np.ndarray, CodeBooks]:
    """Patches (P, D) and code books of `count` entries, as fits could have left them."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 1, count)
    mixture = Mixture(
        weights / weights.sum(), rng.normal(size=(count, dimensions)), rng.uniform(0.3, 2, (count, dimensions))
    )
    centres = Centres(rng.normal(size=(count, dimensions)), sharpness=float(rng.uniform(0.1, 3)))
    return rng.normal(size=(patches, dimensions)), CodeBooks(centres, mixture)


def shares(x: np.ndarray, books: CodeBooks, how: str) -> list[float]:
    """One patch's assignment, number by number."""
    count = len(books.centres.centres)
    if how == "hard":
        squares = [sum((a - b) ** 2 for a, b in zip(x, c, strict=True)) for c in books.centres.centres]
        return [float(k == squares.index(min(squares))) for k in range(count)]
    if how == "soft":
        distances = [math.dist(x, c) for c in books.centres.centres]
        powers = [math.exp(-books.centres.sharpness * d**2) for d in distances]
    else:
        m = books.mixture
        powers = [
            m.weights[k]
            * math.prod(
                math.exp(-((a - mean) ** 2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi))
                for a, mean, s in zip(x, m.means[k], m.deviations[k], strict=True)
            )
            for k in range(count)
        ]
    return [p / sum(powers) for p in powers]


def slow(name: str, patches: np.ndarray, books: CodeBooks) -> np.ndarray:
    """Each encoding by its definition, in loops."""
    centres, mixture = books.centres.centres, books.mixture
    (count, dimensions), total = centres.shape, len(patches)
    how = "posterior" if name.startswith("fisher") else "soft" if "soft" in name else "hard"
    out = np.zeros((1, count, 1 if name.startswith("histogram") else dimensions))
    out = np.repeat(out, 2, 0) if how == "posterior" else out
    for x in patches:
        for k, share in enumerate(shares(x, books, how)):
            for d in range(out.shape[2]):
                if name.startswith("histogram"):
                    out[0, k, d] += share / total
                elif name.startswith("vlad"):
                    out[0, k, d] += share * (x[d] if name.endswith("plain") else x[d] - centres[k, d])
                else:
                    weight, deviation = mixture.weights[k], mixture.deviations[k, d]
                    plain = name.endswith("plain")
                    z = x[d] / deviation if plain else (x[d] - mixture.means[k, d]) / deviation
                    out[0, k, d] += share * z / (total * math.sqrt(weight))
                    out[1, k, d] += share * (z**2 - (0 if plain else 1)) / (total * math.sqrt(2 * weight))
    return out.reshape(-1, out.shape[2])


@settings(max_examples=25, deadline=None)
@given(CASES, st.sampled_from(sorted(ENCODINGS)))
def test_an_encoding_is_its_definition(case, name) -> None:
    patches, books = draw(*case)
    np.testing.assert_allclose(ENCODINGS[name].encode(patches, books.of(name)), slow(name, patches, books), atol=1e-10)


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_many_pictures_are_encoded_as_one_by_one(name: str) -> None:
    patches = np.random.default_rng(1).normal(size=(300, 4, 3)).astype(np.float32)
    _, books = draw(1, 3, 5, 0)
    together = encode(ENCODINGS[name], patches, books.of(name))
    for place in (0, 255, 256, 299):
        np.testing.assert_allclose(together[place], slow(name, patches[place].astype(float), books), atol=1e-4)


def test_one_centre_has_the_sum_of_all_residuals() -> None:
    patches, _ = draw(9, 4, 1, 0)
    one = Centres(np.arange(4.0)[None], sharpness=1.0)
    for soft in (False, True):
        np.testing.assert_allclose(vlad(patches, one, soft=soft)[0], (patches - np.arange(4)).sum(0), atol=1e-12)
        np.testing.assert_allclose(vlad_plain(patches, one, soft=soft)[0], patches.sum(0), atol=1e-12)
        assert histogram(patches, one, soft=soft) == pytest.approx(1)
    mean = fit_centres(patches, 1, seed=0)
    np.testing.assert_allclose(vlad(patches, mean), 0, atol=1e-12)


def test_one_gaussian_fitted_to_the_patches_has_nothing_to_tell() -> None:
    """The likelihood is at its maximum: both gradients are 0. Wider and shifted patches point there."""
    patches = np.random.default_rng(0).normal(size=(500, 3))
    one = Mixture(np.ones(1), patches.mean(0)[None], patches.std(0)[None])
    np.testing.assert_allclose(fisher(patches, one), 0, atol=1e-12)
    first, second = fisher(one.means + 2 * (patches - one.means) + one.deviations, one)
    np.testing.assert_allclose(first, 1)
    np.testing.assert_allclose(second, (4 + 1 - 1) / math.sqrt(2))


@pytest.mark.parametrize("seed", range(3))
def test_fisher_vectors_are_gradients_of_scikit_learns_likelihood(seed: int) -> None:
    """Of the mean of `score_samples`, written in torch and checked against it; times the Fisher information's
    normalisation, deviation / sqrt(weight) and deviation / sqrt(2 weight)."""
    rng = np.random.default_rng(seed)
    sample = rng.normal(size=(200, 4)) * [1, 2, 0.5, 1] + rng.choice([-2, 0, 3], (200, 1))
    fitted = GaussianMixture(3, covariance_type="diag", random_state=seed).fit(sample)
    patches = rng.normal(size=(20, 4))
    weights, means, deviations = (
        torch.tensor(values, requires_grad=True)
        for values in (fitted.weights_, fitted.means_, np.sqrt(fitted.covariances_))
    )
    densities = torch.distributions.Normal(means, deviations).log_prob(torch.tensor(patches)[:, None]).sum(2)
    scores = torch.logsumexp(weights.log() + densities, 1)
    np.testing.assert_allclose(scores.detach(), fitted.score_samples(patches), rtol=1e-10)
    scores.mean().backward()
    scale = (deviations / weights.sqrt()[:, None]).detach()
    expected = torch.cat([means.grad * scale, deviations.grad * scale / math.sqrt(2)])
    mixture = Mixture(fitted.weights_, fitted.means_, np.sqrt(fitted.covariances_))
    np.testing.assert_allclose(fisher(patches, mixture), expected, atol=1e-8)
    np.testing.assert_allclose(mixture.posteriors(patches), fitted.predict_proba(patches), atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(CASES)
def test_soft_assignment_becomes_hard_with_sharpness(case) -> None:
    patches, books = draw(*case)
    sharp = Centres(books.centres.centres, sharpness=1e9)
    np.testing.assert_allclose(vlad(patches, sharp, soft=True), vlad(patches, sharp), atol=1e-10)
    np.testing.assert_allclose(vlad_plain(patches, sharp, soft=True), vlad_plain(patches, sharp), atol=1e-10)
    flat = Centres(books.centres.centres, sharpness=0.0)
    np.testing.assert_allclose(flat.soft(patches), 1 / len(flat.centres))


@settings(max_examples=25, deadline=None)
@given(CASES, st.sampled_from(sorted(ENCODINGS)), st.randoms())
def test_the_order_of_patches_does_not_matter(case, name, random) -> None:
    patches, books = draw(*case)
    order = random.sample(range(len(patches)), len(patches))
    encoded = ENCODINGS[name].encode
    book = books.of(name)
    np.testing.assert_allclose(encoded(patches[order], book), encoded(patches, book), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(CASES, st.sampled_from(sorted(ENCODINGS)), st.floats(1, 20))
def test_residuals_do_not_depend_on_the_origin_and_the_vectors_do(case, name, shift) -> None:
    patches, books = draw(*case)
    m = books.mixture
    moved = CodeBooks(
        Centres(books.centres.centres + shift, books.centres.sharpness),
        Mixture(m.weights, m.means + shift, m.deviations),
    )
    encoded = ENCODINGS[name].encode
    here, there = encoded(patches, books.of(name)), encoded(patches + shift, moved.of(name))
    if name in RESIDUAL or name.startswith("histogram"):
        np.testing.assert_allclose(here, there, atol=1e-8)
    else:
        assert np.abs(here - there).max() > 1e-3


def test_plain_first_powers_are_residual_ones_and_the_means_share() -> None:
    """What the two say is the same but for how many patches a centre has."""
    patches, books = draw(10, 3, 4, 0)
    counts = histogram(patches, books.centres) * len(patches)
    plain = vlad_plain(patches, books.centres)
    np.testing.assert_allclose(plain - counts * books.centres.centres, vlad(patches, books.centres))
    m = books.mixture
    mass = m.posteriors(patches).mean(0)[:, None]
    difference = fisher_plain(patches, m)[:4] - fisher(patches, m)[:4]
    np.testing.assert_allclose(difference, mass * m.means / m.deviations / np.sqrt(m.weights)[:, None])


def test_code_books_find_what_patches_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    places = np.array([[-10.0, 0], [0, 10], [10, -10]])
    sample = (places[rng.choice(3, 3000, p=[0.2, 0.3, 0.5])] + rng.normal(size=(3000, 2)) * [0.5, 2]).astype(np.float32)
    centres, mixture = fit_centres(sample, 3, seed=1), fit_mixture(sample, 3, seed=1)
    for fitted in (centres.centres, mixture.means):
        assert fitted.dtype == np.float32
        np.testing.assert_allclose(fitted[fitted[:, 0].argsort()], places, atol=0.3)
    order = mixture.means[:, 0].argsort()
    np.testing.assert_allclose(mixture.weights[order], [0.2, 0.3, 0.5], atol=0.03)
    np.testing.assert_allclose(mixture.deviations, [[0.5, 2]] * 3, atol=0.1)
    assert centres.sharpness == pytest.approx(1 / (2 * (0.5**2 + 2**2) / 2), rel=0.05)
    again = fit_centres(sample, 3, seed=1)
    assert np.array_equal(again.centres, centres.centres)


def test_a_code_book_needs_as_many_different_patches() -> None:
    sample = np.repeat(np.eye(3), 5, 0)
    assert len(fit_centres(sample, 3, seed=0).centres) == 3
    for fit in (fit_centres, fit_mixture):
        with pytest.raises(ConfigError, match="centres 4: the sample has 3 different patches"):
            fit(sample, 4, seed=0)


def test_normalisations() -> None:
    blocks = np.array([[[3.0, 4.0], [0.0, 0.0], [-5.0, 12.0]], [[0.0, 0.0]] * 3])
    np.testing.assert_allclose(normalise(blocks, "l2")[0] * math.sqrt(194), [3, 4, 0, 0, -5, 12])
    power = np.array([math.sqrt(3), 2, 0, 0, -math.sqrt(5), math.sqrt(12)])
    np.testing.assert_allclose(normalise(blocks, "power")[0], power / math.sqrt(24))
    intra = np.array([0.6, 0.8, 0, 0, -5 / 13, 12 / 13])
    np.testing.assert_allclose(normalise(blocks, "intra")[0], intra / math.sqrt(2))
    for how in ("l2", "power", "intra"):
        assert (normalise(blocks, how)[1] == 0).all()
    np.testing.assert_allclose(normalise(blocks[:, :, :1], "intra"), normalise(blocks[:, :, :1], "l2"))


def test_whitened_patches_are_uncorrelated_and_keep_most_of_the_variance() -> None:
    rng = np.random.default_rng(0)
    sample = 5 + rng.normal(size=(1000, 6)) * [3, 2, 1, 0.1, 0.1, 0.1] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    whitened = fit_whitening(sample, 3, "mean")(sample)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-8)
    shifted = fit_whitening(sample, 3, "zero")
    np.testing.assert_allclose(shifted(np.zeros(6)), 0)
    np.testing.assert_allclose(shifted(sample) - shifted(sample.mean(0)), whitened, atol=1e-8)
    others = np.linalg.lstsq(np.c_[whitened, np.ones(1000)], sample, rcond=None)[1]
    assert others.sum() / 1000 < 0.1 * 6  # only the three small directions are lost


@pytest.mark.parametrize(("dimensions", "shape", "rank"), [(3, (50, 5), 2), (6, (50, 5), 5), (8, (4, 9), 4)])
def test_whitening_needs_as_many_directions(dimensions: int, shape: tuple[int, int], rank: int) -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1])) + 1
    with pytest.raises(ConfigError, match=f"dimensions {dimensions}: .* in only {rank} directions"):
        fit_whitening(sample, dimensions, "mean")


def test_unit_length() -> None:
    x = unit_length(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0]])


def test_drawn_patches_are_different_ones_of_all_pictures() -> None:
    patches = np.arange(60.0).reshape(10, 3, 2)
    drawn = draw_patches(patches, 12, seed=0)
    assert len({tuple(x) for x in drawn}) == 12
    assert {tuple(x) for x in drawn} <= {tuple(x) for x in patches.reshape(-1, 2)}
    assert not np.array_equal(drawn, draw_patches(patches, 12, seed=1))
    assert len(draw_patches(patches, 99, seed=0)) == 30
