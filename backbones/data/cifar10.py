"""CIFAR-10 in its own layout, `cifar-10-batches-py/`."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10

from backbones.data.datasets import ClassificationDataset
from backbones.data.pickles import read_named_values
from backbones.errors import DataError

CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_TRAIN, _TEST = [f"data_batch_{n}" for n in range(1, 6)], ["test_batch"]
_FILES = {"train": _TRAIN, "train45k": _TRAIN, "val5k": _TRAIN, "test": _TEST}
_OFFICIAL_MD5 = dict(CIFAR10.train_list + CIFAR10.test_list)
_SPLIT_SEED = 45_000  # never to be changed: it is what the 45k/5k split is
_AGAIN = "unpack cifar-10-python.tar.gz anew"
_MOST_BYTES = 2**28  # of one file: the official ones have 31 MB


def read_cifar10(root: str | Path, split: str, *, official: bool = False) -> ClassificationDataset:
    """Reads pictures of 32x32.

    Args:
        root: the folder that holds `cifar-10-batches-py`, or that folder itself.
        split: "train", 50,000 pictures; "test", 10,000; or the parts of "train" that the paper chose its schedule on
            (4.2): "train45k" and "val5k", a tenth drawn at random, always the same.
        official: refuse files that are not CIFAR-10's own, by their md5 sums.

    Raises:
        DataError: a missing, damaged or foreign file, an unknown split.
    """
    if split not in _FILES:
        raise DataError(f"CIFAR-10 has no split {split!r}: use {', '.join(_FILES)}")
    folder = Path(root)
    if folder.name != "cifar-10-batches-py":
        folder = folder / "cifar-10-batches-py"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (CIFAR-10's python version, unpacked)")
    contents = {folder / name: _read_file(folder / name) for name in _FILES[split]}
    sums = {path: hashlib.md5(content, usedforsecurity=False).hexdigest() for path, content in contents.items()}
    foreign = [path for path in sums if sums[path] != _OFFICIAL_MD5[path.name]]
    if official and foreign:
        raise DataError(
            f"{foreign[0]}: md5 {sums[foreign[0]]}, CIFAR-10's own has {_OFFICIAL_MD5[foreign[0].name]}: "
            f"{_AGAIN}, or leave out --data.official for a set of your own"
        )
    parts = [_parse_batch(path, content) for path, content in contents.items()]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    places = _places(split, len(labels))
    if not len(places):
        raise DataError(f"{folder}: {len(labels)} pictures are too few for a split {split}: use train or test")
    pixels, labels = np.ascontiguousarray(pixels[places]), labels[places]
    digest = hashlib.md5("".join(sums.values()).encode(), usedforsecurity=False).hexdigest()
    return ClassificationDataset(
        CLASS_NAMES,
        labels,
        lambda index: Image.fromarray(pixels[index]),
        lambda index: f"{folder} {split} picture {index}",
        f"cifar10 {split} {digest if foreign else 'official'}",
        pixels,
        not foreign,
    )


def _places(split: str, total: int) -> np.ndarray:
    """Where a split's pictures lie among those of its files."""
    if split not in ("train45k", "val5k"):
        return np.arange(total)
    # The legacy generator's draws are promised never to change.
    drawn = np.random.RandomState(_SPLIT_SEED).permutation(total)[: total // 10]
    return np.sort(drawn) if split == "val5k" else np.setdiff1d(np.arange(total), drawn)


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(
                f"{path}: has more than {_MOST_BYTES // 2**20} MiB, a batch of CIFAR-10 has 31 MB: {_AGAIN}"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file: {_AGAIN}") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _parse_batch(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = read_named_values(content)
        # Bytes in the original, written by Python 2; text where Python 3 wrote the files anew.
        keys = (b"data", b"labels") if b"data" in batch else ("data", "labels")
        data, labels = (batch[key] for key in keys)
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise DataError(f"{path}: not a batch of CIFAR-10 ({' '.join(str(error).split())[:150]}): {_AGAIN}") from error
    # A few bytes can name huge arrays and lists, so nothing is computed of them before their sizes are known.
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != 3072
        or not 0 < data.nbytes <= len(content)
    ):
        raise DataError(f"{path}: not a batch of CIFAR-10 (no pictures of 3072 bytes each): {_AGAIN}")
    flat = isinstance(labels, list) or (isinstance(labels, np.ndarray) and labels.ndim == 1)
    if not flat or len(labels) != len(data) or not all(map(_is_label, labels)):
        raise DataError(
            f"{path}: not a batch of CIFAR-10 (no label in 0..9 for each of {len(data)} pictures): {_AGAIN}"
        )
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, dtype=np.int64)


def _is_label(value: Any) -> bool:
    return isinstance(value, int | np.integer) and 0 <= int(value) <= 9
