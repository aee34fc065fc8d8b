"""What loading processes hold for themselves: they do not copy a data set as they use it, and keep no pictures."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones.data.augment import ScaleCropFlip
from backbones.data.batches import Batch, pixel_loader
from backbones.data.datasets import ClassificationDataset
from backbones.data.folder import read_folder
from backbones.data.loader import training_batches
from backbones.data.sampler import SampleKey, StepSampler
from backbones.data.shards.index import INDEX, ShardIndex, save_index
from backbones.data.shards.reading import read_shards
from backbones.data.transforms import NamedTransforms

CLASSES, EACH = 100, 3000
PICTURES = CLASSES * EACH
MEMORY = Path("/proc/self/smaps_rollup")
CLASS_NAMES = [f"n{label:08d}" for label in range(CLASSES)]


def own_memory() -> int:
    """Bytes of this process that it has written and shares with none, as the process that it was forked from."""
    (line,) = (line for line in MEMORY.read_text().splitlines() if line.startswith("Private_Dirty"))
    return int(line.split()[1]) * 1024


def unavailable() -> str | None:
    """Why memory can't be compared here."""
    try:
        own_memory()
    except (OSError, ValueError) as error:
        return f"{MEMORY} can't be read ({error})"
    return None if multiprocessing.get_start_method() == "fork" else "loading processes are no forks here"


pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def file_names(label: int) -> list[str]:
    return [f"{CLASS_NAMES[label]}_{number:04d}.JPEG" for number in range(EACH)]


def large_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> ClassificationDataset:
    """As read from a disk that lists its files, and does not have them."""
    for name in CLASS_NAMES:
        (root / "train" / name).mkdir(parents=True)
    with monkeypatch.context() as disk:
        disk.setattr(os, "scandir", lambda folder: [SimpleNamespace(name=f) for f in file_names(int(folder.name[1:]))])
        return read_folder(root, "train")


def large_shards(root: Path, monkeypatch: pytest.MonkeyPatch) -> ClassificationDataset:
    """As read from an index whose shards are somewhere else."""
    names = [f"{name}/{file}".encode() for label, name in enumerate(CLASS_NAMES) for file in file_names(label)]
    shards = PICTURES // 1000
    offsets = np.tile(512 + 2048 * np.arange(1000), shards)
    index = ShardIndex(
        class_names=CLASS_NAMES,
        shard_sizes=np.full(shards, 2048 * 1001),
        shard_digests=np.zeros((shards, 32), np.uint8),
        pictures_by_shard=np.full(shards, 1000),
        offsets=offsets,
        lengths=np.full(PICTURES, 1024),
        labels=np.arange(PICTURES) // EACH,
        name_ends=np.cumsum([len(name) for name in names]),
        names=np.frombuffer(b"".join(names), np.uint8),
    )
    (root / "train").mkdir()
    save_index(root / "train" / INDEX, index)
    return read_shards(str(root), "train")


def in_a_process(load: Callable[[list[SampleKey]], Any], *, steps: int, batch_size: int) -> list[Any]:
    """What a loading process gives back."""
    sampler = StepSampler(
        steps * batch_size, batch_size=batch_size, accumulate=1, start_step=0, steps=steps, seed=0, rank=0, world_size=1
    )
    ours = os.getpid()

    def load_elsewhere(keys: list[SampleKey]) -> Any:
        assert os.getpid() != ours
        return load(keys)

    return list(training_batches(load_elsewhere, sampler, workers=1, pin_memory=False))


def growth(use: Callable[[int], Any]) -> int:
    """By how many bytes a loading process grows that uses pictures here and there: each page of 4 kB that is used."""
    pictures = np.random.default_rng(0).integers(0, PICTURES, 60_000)

    def measure(keys: list[SampleKey]) -> int:
        for picture in range(50):  # what is allocated once
            use(picture)
        before = own_memory()
        for picture in pictures:
            use(picture)
        return own_memory() - before

    (size,) = in_a_process(measure, steps=1, batch_size=1)
    return size


@pytest.mark.parametrize("make", [large_folder, large_shards])
def test_using_pictures_copies_nothing(
    make: Callable[[Path, pytest.MonkeyPatch], ClassificationDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300,000 pictures; of their names as str, the usual way, all are copied."""
    dataset = make(tmp_path, monkeypatch)
    assert len(dataset) == PICTURES
    names = [f"/data/{folder}/{file}" for label, folder in enumerate(CLASS_NAMES) for file in file_names(label)]

    def use(picture: int) -> None:
        assert dataset.name(picture).endswith(f"{CLASS_NAMES[dataset.labels[picture]]}_{picture % EACH:04d}.JPEG")

    assert growth(use) < 1e6
    assert growth(names.__getitem__) > 20e6


def test_pictures_that_were_sent_are_not_kept() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 130, 3), dtype=np.uint8))
    dataset = ClassificationDataset(["a"], np.zeros(1000, np.int64), lambda index: picture, str, "test")
    load = pixel_loader(dataset, ScaleCropFlip(100, 100, 110), NamedTransforms([], 100), None, size=100)
    kept: list[np.ndarray] = []

    def measure(keys: list[SampleKey]) -> tuple[Batch, int]:
        return load(keys), own_memory()

    def keep(keys: list[SampleKey]) -> tuple[Batch, int]:
        batch, size = measure(keys)
        kept.append(batch.images.numpy().copy())
        return batch, size

    def own_growth(load: Callable[[list[SampleKey]], tuple[Batch, int]]) -> int:
        sizes = [size for _, size in in_a_process(load, steps=45, batch_size=20)]
        return sizes[-1] - sizes[4]

    assert own_growth(measure) < 6e6
    assert own_growth(keep) > 18e6  # the pictures of 40 batches are 24 MB
