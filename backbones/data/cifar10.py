"""CIFAR-10 in its own layout, `cifar-10-batches-py/`."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backbones.data.datasets import ClassificationDataset
from backbones.errors import DataError

CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_FILES = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and refuses everything else that a pickle could name, so no code can run."""

    _ALLOWED = {
        (module, name)
        for package in ("numpy.core", "numpy._core")
        for module, name in [(f"{package}.multiarray", "_reconstruct"), (f"{package}.multiarray", "scalar")]
    } | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}, which CIFAR-10 does not hold")
        return super().find_class(module, name)


def read_cifar10(root: str | Path, split: str) -> ClassificationDataset:
    """Reads the 50,000 training ("train") or 10,000 test ("test") pictures, 32x32.

    Args:
        root: the folder that holds `cifar-10-batches-py`, or that folder itself.

    Raises:
        DataError: a missing, damaged or foreign file, an unknown split.
    """
    if split not in _FILES:
        raise DataError(f"CIFAR-10 has no split {split!r}: use train or test")
    folder = Path(root)
    if folder.name != "cifar-10-batches-py":
        folder = folder / "cifar-10-batches-py"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (CIFAR-10's python version, unpacked)")
    parts = [_read_batch(folder / name) for name in _FILES[split]]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return ClassificationDataset(
        CLASS_NAMES,
        labels,
        lambda index: Image.fromarray(images[index]),
        lambda index: f"{folder} {split} picture {index}",
        f"cifar10 {split}",
    )


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        # Bytes in the original, written by Python 2; text where Python 3 wrote the files anew.
        keys = (b"data", b"labels") if b"data" in batch else ("data", "labels")
        data, labels = (np.asarray(batch[key]) for key in keys)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise DataError(f"{path}: not a batch of CIFAR-10 ({' '.join(str(error).split())[:150]})") from error
    if (
        data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != 3072
        or labels.shape != (len(data),)
        or not len(data)
    ):
        raise DataError(f"{path}: not a batch of CIFAR-10 (pictures of shape {data.shape}, {labels.size} labels)")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{path}: a label is not in 0..9")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)
