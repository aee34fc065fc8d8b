"""Mean and colours of a training set: what is subtracted from pictures, and along which colours they are varied.

Section 3.4 subtracts the mean per pixel and uses AlexNet's colour augmentation (Krizhevsky et al. 2012, 4.1), whose
directions are the principal components of the training set's RGB values. All values are of pixels in 0..255.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from backbones.data.augment import center_crop
from backbones.data.datasets import ClassificationDataset
from backbones.data.loader import testing_batches
from backbones.engine.checkpoint import write_atomically
from backbones.errors import DataError
from backbones.progress import progress_bar

_BATCH = 64
_AGAIN = "make it anew with prepare_data.py statistics"
_TEXTS = ("count", "shorter", "fingerprint")


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics of the centre crops of a training set.

    Args:
        mean_picture: (3, S, S), the mean per pixel.
        mean: (3,), the mean per channel.
        covariance: (3, 3), of the pixels' R, G and B.
        eigenvalues: (3,), of the covariance, falling.
        eigenvectors: (3, 3), column k belongs to eigenvalue k.
        count: pictures.
        shorter: their shorter side before cropping; None where they were left as they are.
        fingerprint: of the training set (`ClassificationDataset.fingerprint`).
    """

    mean_picture: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    count: int
    shorter: int | None
    fingerprint: str

    @property
    def color_directions(self) -> np.ndarray:
        """(3, 3): column k is the colour shift for a draw of 1 along component k.

        AlexNet's eigenvector times eigenvalue, the eigenvalue being that of pixel values in 0..1, as usual.
        """
        return self.eigenvectors * self.eigenvalues / 255


def statistics_path(root: str | Path, size: int) -> Path:
    """Where the statistics of a folder data set lie, for crops of `size` pixels."""
    return Path(root) / f"statistics_{size}.safetensors"


def compute_statistics(
    dataset: ClassificationDataset, *, size: int, shorter: int | None, workers: int, progress: bool = True
) -> PixelStatistics:
    """Reads every picture once; sums are of whole numbers, so the result depends on nothing but the pictures.

    Args:
        size: the side of the centre crops, in pixels.
        shorter: the shorter side before cropping; None leaves pictures as they are.
        workers: processes that read pictures; 0 reads in this one.
        progress: show a bar.

    Raises:
        DataError: a picture can't be read or is smaller than the crop.
    """

    def load(index: int) -> Tensor:
        try:
            return torch.from_numpy(np.array(center_crop(dataset.picture(index), size, shorter)[0]))
        except DataError as error:
            raise error.about(dataset.name(index)) from error

    total = np.zeros((size, size, 3), dtype=np.int64)
    products = np.zeros((3, 3), dtype=np.int64)
    views = dataset.center_views(size, shorter)
    batches: Iterable[Tensor] = (
        testing_batches(load, range(len(dataset)), batch_size=_BATCH, workers=workers, collate=torch.stack)
        if views is None
        else torch.from_numpy(views).split(_BATCH)
    )
    with progress_bar(total=len(dataset), unit="picture", description="statistics", shown=progress) as bar:
        for batch in batches:
            pixels = batch.numpy()
            total += pixels.sum(0, dtype=np.int64)
            flat = pixels.reshape(-1, 3).astype(np.float64)  # 64 crops' products stay whole numbers in float64
            products += (flat.T @ flat).astype(np.int64)
            bar.update(len(pixels))
    mean_picture = total / len(dataset)
    mean = mean_picture.mean((0, 1))
    covariance = products / (len(dataset) * size * size) - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    vectors = vectors[:, ::-1] * np.sign(vectors[np.abs(vectors).argmax(0), range(3)])[::-1]  # one of two signs
    return PixelStatistics(
        mean_picture=mean_picture.transpose(2, 0, 1).copy(),
        mean=mean,
        covariance=covariance,
        eigenvalues=values[::-1].clip(0).copy(),
        eigenvectors=vectors.copy(),
        count=len(dataset),
        shorter=shorter,
        fingerprint=dataset.fingerprint(),
    )


def save_statistics(path: Path, statistics: PixelStatistics) -> None:
    """Writes statistics, whole or not at all.

    Raises:
        DataError: the file can't be written.
    """
    tensors = {f.name: getattr(statistics, f.name) for f in fields(statistics) if f.name not in _TEXTS}
    texts = {name: str(getattr(statistics, name)) for name in _TEXTS}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, temporary, texts))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: can't be written ({error})") from error


def load_statistics(path: Path) -> PixelStatistics:
    """Reads statistics.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    try:
        with safe_open(path, "numpy") as file:
            texts = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        shorter = None if texts["shorter"] == "None" else int(texts["shorter"])
        statistics = PixelStatistics(
            **arrays, count=int(texts["count"]), shorter=shorter, fingerprint=texts["fingerprint"]
        )
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; make it with prepare_data.py statistics") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a file of statistics ({' '.join(str(error).split())[:150]}); {_AGAIN}") from error
    size = statistics.mean_picture.shape[-1] if statistics.mean_picture.ndim == 3 else 0
    shapes = {"mean_picture": (3, size, size), "mean": (3,), "covariance": (3, 3)}
    shapes |= {"eigenvalues": (3,), "eigenvectors": (3, 3)}
    for name, shape in shapes.items():
        array = getattr(statistics, name)
        if array.shape != shape or not np.isfinite(array).all():
            raise DataError(f"{path}: {name} is not {shape} finite numbers; {_AGAIN}")
    return statistics
