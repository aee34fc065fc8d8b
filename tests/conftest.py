"""What the tests share: the packs of real data, found through RESNET_TEST_DATA."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

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

    `coco_subset`: train2017, val2017, annotations; `bccd`: VOCdevkit; `imagenette`: train, val; `cifar10`:
    cifar-10-batches-py.
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


def _unpack(archive: Path, folder: Path) -> Path:
    if archive.suffix == ".npz":
        script = archive.parent / "prepare_cifar10.py"
        subprocess.run([sys.executable, script, "--pack", archive, "--out", folder], check=True, capture_output=True)
        return folder
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top
