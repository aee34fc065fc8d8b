"""Statistics of pictures against numpy's own, and their file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.data.datasets import ClassificationDataset
from backbones.data.statistics import compute_statistics, load_statistics, save_statistics
from backbones.errors import DataError


def dataset(pictures: list[np.ndarray]) -> ClassificationDataset:
    return ClassificationDataset(
        ["a"],
        np.zeros(len(pictures), dtype=np.int64),
        lambda index: Image.fromarray(pictures[index]),
        lambda index: f"picture {index}",
        "test",
    )


def draw(count: int, height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 200, (count, height, width, 1))
    return list((grey + rng.integers(0, 56, (count, height, width, 3))).astype(np.uint8))


@pytest.mark.parametrize("workers", [0, 2])
def test_equal_to_numpy(workers: int) -> None:
    pictures = draw(70, 8, 10)
    found = compute_statistics(dataset(pictures), size=8, shorter=None, workers=workers, progress=False)
    crops = np.stack([p[:, 1:9] for p in pictures]).astype(np.float64)
    np.testing.assert_allclose(found.mean_picture, crops.mean(0).transpose(2, 0, 1))
    np.testing.assert_allclose(found.mean, crops.mean((0, 1, 2)))
    np.testing.assert_allclose(found.covariance, np.cov(crops.reshape(-1, 3).T, bias=True), rtol=1e-9)
    # The components rebuild the covariance, in falling order.
    rebuilt = found.eigenvectors @ np.diag(found.eigenvalues) @ found.eigenvectors.T
    np.testing.assert_allclose(rebuilt, found.covariance, rtol=1e-9)
    assert np.all(np.diff(found.eigenvalues) <= 0)
    assert np.abs(found.eigenvectors[:, 0]).min() > 0.5  # grey is what varies most
    assert found.count == 70
    # AlexNet: the shift of pixels in 0..1 is sum p_k (alpha_k lambda_k), lambda of their covariance.
    values, vectors = np.linalg.eigh(np.cov(crops.reshape(-1, 3).T / 255, bias=True))
    for k in range(3):
        expected = 255 * vectors[:, 2 - k] * values[2 - k]
        sign = np.sign(expected @ found.color_directions[:, k])
        np.testing.assert_allclose(found.color_directions[:, k], sign * expected, rtol=1e-6)
        assert found.eigenvectors[np.abs(found.eigenvectors[:, k]).argmax(), k] > 0  # one of two signs


def test_a_file_gives_them_back(tmp_path: Path) -> None:
    found = compute_statistics(dataset(draw(3, 8, 8)), size=8, shorter=None, workers=0, progress=False)
    save_statistics(tmp_path / "s.safetensors", found)
    again = load_statistics(tmp_path / "s.safetensors")
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_bad_files_and_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; make it with prepare_data"):
        load_statistics(tmp_path / "missing.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\x08" * 40)
    with pytest.raises(DataError, match=r"bad.safetensors: not a file of statistics"):
        load_statistics(tmp_path / "bad.safetensors")
    with pytest.raises(DataError, match="picture 0: a picture of 8x8 is smaller"):
        compute_statistics(dataset(draw(1, 8, 8)), size=9, shorter=None, workers=0, progress=False)
