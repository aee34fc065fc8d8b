"""CIFAR-10's files, and others that only look like them."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones.data.cifar10 import CLASS_NAMES, read_cifar10
from backbones.data.readers import read_split
from backbones.data.statistics import compute_statistics
from backbones.errors import ConfigError, DataError


def write_batch(path: Path, seed: int, count: int = 4) -> tuple[np.ndarray, list[int]]:
    """A batch in the layout of the original: bytes keys, planes of red, green and blue, labels as a list."""
    rng = np.random.default_rng(seed)
    data, labels = rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, 10, count).tolist()
    path.write_bytes(pickle.dumps({b"batch_label": b"x", b"data": data, b"labels": labels}, protocol=2))
    return data, labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small data set; `seed` of batch n is n, of the test batch 6."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    for number in range(1, 6):
        write_batch(tmp_path / "cifar-10-batches-py" / f"data_batch_{number}", number)
    write_batch(tmp_path / "cifar-10-batches-py" / "test_batch", 6, count=3)
    return tmp_path


def test_pictures_and_labels_come_in_the_order_of_the_files(root: Path) -> None:
    train, test = read_cifar10(root, "train"), read_cifar10(root / "cifar-10-batches-py", "test")
    assert (len(train), len(test)) == (20, 3)
    assert train.class_names == CLASS_NAMES
    for number in range(1, 6):
        data, labels = write_batch(root / "again", number)
        for place in range(4):
            index = 4 * (number - 1) + place
            pixels = np.asarray(train.picture(index))
            for y, x, channel in [(0, 0, 0), (0, 31, 1), (31, 0, 2), (5, 7, 1)]:
                assert pixels[y, x, channel] == data[place, 1024 * channel + 32 * y + x]
            assert train.labels[index] == labels[place]
    assert "picture 7" in train.name(7)


def test_the_mean_picture_is_the_mean_of_the_pixels(root: Path) -> None:
    train = read_cifar10(root, "train")
    pixels = np.stack([np.asarray(train.picture(index)) for index in range(20)]).astype(float)
    found = compute_statistics(train, size=32, shorter=None, workers=0, progress=False)
    assert found.mean_picture.shape == (3, 32, 32)
    np.testing.assert_allclose(found.mean_picture, pixels.mean(0).transpose(2, 0, 1))


def test_the_fingerprint_tells_splits_and_labels_apart(root: Path) -> None:
    before = read_cifar10(root, "train").fingerprint()
    assert before == read_cifar10(root, "train").fingerprint()
    assert before != read_cifar10(root, "test").fingerprint()
    write_batch(root / "cifar-10-batches-py" / "data_batch_2", 77)
    assert before != read_cifar10(root, "train").fingerprint()


def test_files_pickled_by_old_numpy_are_read_too(root: Path) -> None:
    path = root / "cifar-10-batches-py" / "test_batch"
    before = np.asarray(read_cifar10(root, "test").picture(1))
    assert b"numpy._core" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    assert np.array_equal(np.asarray(read_cifar10(root, "test").picture(1)), before)


def test_files_written_anew_by_python_3_are_read_too(root: Path) -> None:
    path = root / "cifar-10-batches-py" / "test_batch"
    before = np.asarray(read_cifar10(root, "test").picture(1))
    batch = pickle.loads(path.read_bytes(), encoding="bytes")
    path.write_bytes(pickle.dumps({key.decode(): value for key, value in batch.items()}))
    assert np.array_equal(np.asarray(read_cifar10(root, "test").picture(1)), before)


class Trap:
    """A pickle of this makes a folder when it is loaded without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_batch_is_refused_and_not_run(root: Path) -> None:
    path, trap = root / "cifar-10-batches-py" / "test_batch", Trap(root / "sprung")
    for content in (trap, {b"data": trap, b"labels": []}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"test_batch: not a batch of CIFAR-10 \(names (posix|nt).mkdir"):
            read_cifar10(root, "test")
    assert not (root / "sprung").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_batch_is_named(root: Path, share: float) -> None:
    path = root / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="data_batch_3: not a batch"):
        read_cifar10(root, "train")


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {b"data": PIXELS},
        {b"data": PIXELS.astype(float), b"labels": [0, 1]},
        {b"data": PIXELS[:, :100], b"labels": [0, 1]},
        {b"data": PIXELS, b"labels": [0]},
        {b"data": PIXELS, b"labels": [0, 10]},
        {b"data": PIXELS, b"labels": [-1, 0]},
        {b"data": PIXELS, b"labels": [0.0, 1.0]},
        {b"data": PIXELS, b"labels": [[0], [1, 2]]},
        {b"data": PIXELS[:0], b"labels": []},
    ],
)
def test_something_else_is_refused(root: Path, batch: Any) -> None:
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match="test_batch: "):
        read_cifar10(root, "test")


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    (root / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4: no such file"):
        read_cifar10(root, "train")
    with pytest.raises(DataError, match="elsewhere"):
        read_cifar10(tmp_path / "elsewhere", "train")
    with pytest.raises(DataError, match="'val': use train, train45k, val5k, test"):
        read_cifar10(root, "val")
    with pytest.raises(ConfigError, match=r"data\.root"):
        read_split("cifar10", None, "train", None, 32, 1)


def test_a_network_of_other_classes_does_not_fit(root: Path) -> None:
    with pytest.raises(DataError, match=r"cat.*are not the network's"):
        read_split("cifar10", str(root), "test", ["a", "b"], 32, 1)


@pytest.mark.data
def test_the_real_files_hold_what_numpy_finds_in_them(data_pack) -> None:
    folder = data_pack("cifar10")
    dataset = read_cifar10(folder, "test")
    (path,) = Path(folder).rglob("test_batch")
    batch = pickle.loads(path.read_bytes(), encoding="bytes")
    batch = {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}
    assert dataset.labels.tolist() == list(batch[b"labels"])
    assert set(dataset.labels.tolist()) == set(range(10))
    planes = np.asarray(dataset.picture(9)).transpose(2, 0, 1).reshape(-1)
    assert np.array_equal(planes, batch[b"data"][9])
