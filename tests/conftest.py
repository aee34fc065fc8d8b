"""What the tests share: the packs of real data, found through RESNET_TEST_DATA."""

import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ARCHIVES = {
    "coco_subset": "coco_subset.tar",
    "bccd": "bccd.tar",
    "imagenette": "imagenette-128.tar.xz",
    "cifar10": "cifar10/cifar10_jpeg.npz",
}


@pytest.fixture(scope="session")
def data_pack(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that unpacks a pack once and gives its folder; it skips the test where the pack is not there.

    `coco_subset`: train2017, val2017, annotations; `bccd`: VOCdevkit; `imagenette`: train, val, every 50th
    picture; `cifar10`: cifar-10-batches-py.
    """
    folders: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if "RESNET_TEST_DATA" not in os.environ:
            pytest.skip("RESNET_TEST_DATA is not set")
        archive = Path(os.environ["RESNET_TEST_DATA"]) / ARCHIVES[name]
        if not archive.is_file():
            pytest.skip(f"{archive} is not there")
        if name not in folders:
            folders[name] = _unpack(archive, tmp_path_factory.mktemp(name))
        return folders[name]

    return unpack


@pytest.fixture(scope="session")
def bright_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A function that makes CIFAR-10's layout with so many pictures a file, whose class is their brightness."""

    def make(count: int) -> Path:
        root = tmp_path_factory.mktemp("cifar")
        folder = root / "cifar-10-batches-py"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]:
            labels = np.arange(count) % 10
            pixels = (25 * labels[:, None] + rng.integers(0, 25, (count, 3072))).astype(np.uint8)
            (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol=2))
        return root

    return make


def _unpack(archive: Path, folder: Path) -> Path:
    if archive.suffix == ".npz":
        script = archive.parent / "prepare_cifar10.py"
        subprocess.run([sys.executable, script, "--pack", archive, "--out", folder], check=True, capture_output=True)
        return folder
    every = 50 if archive.name == ARCHIVES["imagenette"] else 1
    with tarfile.open(archive) as tar:
        for number, member in enumerate(tar):
            if member.isdir() or number % every == 0:
                tar.extract(member, folder, filter="data")
    (top,) = folder.iterdir()
    return top
