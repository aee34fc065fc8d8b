"""CIFAR-10's files, and others that only look like them."""

import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from backbones.data.cifar10 import CLASS_NAMES, _places, read_cifar10
from backbones.data.datasets import ClassificationDataset
from backbones.data.readers import read_split
from backbones.data.statistics import compute_statistics
from backbones.errors import ConfigError, DataError
from backbones.models import get_model
from backbones.scores import class_scores
from backbones.weights import WeightsMetadata


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


def test_the_45k_5k_split_is_a_fixed_tenth_of_the_training_pictures(root: Path) -> None:
    whole, most, tenth = (read_cifar10(root, split) for split in ("train", "train45k", "val5k"))
    assert (len(most), len(tenth)) == (18, 2)

    def pictures(dataset: ClassificationDataset) -> set[tuple[bytes, int]]:
        pairs = [(np.asarray(dataset.picture(i)).tobytes(), int(dataset.labels[i])) for i in range(len(dataset))]
        assert len(set(pairs)) == len(pairs)
        return set(pairs)

    assert pictures(most) | pictures(tenth) == pictures(whole)
    assert not pictures(most) & pictures(tenth)
    again = read_cifar10(root, "val5k")
    assert again.fingerprint() == tenth.fingerprint()
    assert np.array_equal(again.pixels, tenth.pixels)
    assert len({dataset.fingerprint() for dataset in (whole, most, tenth)}) == 3
    # The last 5,000 would be no random draw; these places must never change, whatever numpy is installed.
    places = _places("val5k", 50_000)
    assert len(places) == 5_000
    assert places[:6].tolist() == [11, 13, 14, 22, 37, 50]
    assert int(places.sum()) == 125_851_042


def test_pixels_are_the_pictures(root: Path) -> None:
    train = read_cifar10(root, "train")
    assert train.pixels is not None
    assert train.pixels.shape == (20, 32, 32, 3)
    for index in range(20):
        assert np.array_equal(train.pixels[index], np.asarray(train.picture(index)))
    assert train.center_views(32, None) is train.pixels
    assert train.center_views(32, 32) is train.pixels
    assert train.center_views(28, None) is None
    assert train.center_views(32, 40) is None


def test_statistics_and_scores_of_pixels_are_those_of_pictures_one_by_one(root: Path) -> None:
    fast = read_cifar10(root, "train")
    slow = replace(fast, pixels=None)
    found, expected = (
        compute_statistics(dataset, size=32, shorter=None, workers=0, progress=False) for dataset in (fast, slow)
    )
    for name in ("mean_picture", "covariance", "eigenvectors"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    network = get_model("cifar_resnet8", width=2).eval()
    metadata = WeightsMetadata("classification", "cifar_resnet8", {}, CLASS_NAMES, [100.0] * 3, [50.0] * 3, 32)
    for indices in (range(20), range(1, 20, 3), range(0)):
        scores = [
            class_scores(
                network, metadata, dataset, "center", indices, device=torch.device("cpu"), batch_size=3, workers=0
            )
            for dataset in (fast, slow)
        ]
        assert torch.equal(*scores)


def test_torchvision_reads_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is that of torchvision's CIFAR10, whose check of the md5 sums these files would not pass.

    The keys become Python 2's strings, as in the official files.
    """
    for path in (root / "cifar-10-batches-py").iterdir():
        batch = pickle.loads(path.read_bytes(), encoding="bytes")
        content = pickle.dumps({key.decode(): value for key, value in batch.items()}, protocol=2)
        for key in (b"data", b"labels"):
            unicode, old_string = b"X" + len(key).to_bytes(4, "little") + key, b"U" + bytes([len(key)]) + key
            assert content.count(unicode) == 1
            content = content.replace(unicode, old_string)
        path.write_bytes(content)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    for train, split in ((True, "train"), (False, "test")):
        theirs, ours = CIFAR10(str(root), train=train), read_cifar10(root, split)
        assert np.array_equal(theirs.data, ours.pixels)
        assert theirs.targets == ours.labels.tolist()


def test_files_that_are_claimed_to_be_official_must_have_their_md5_sums(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_cifar10(root, "train").official is False
    with pytest.raises(DataError, match=r"data_batch_1: md5 [0-9a-f]{32}, CIFAR-10's own has c99cafc15"):
        read_cifar10(root, "train", official=True)
    with pytest.raises(ConfigError, match=r"data\.official: .* data\.name shapes"):
        read_split("shapes", None, "train", None, 32, 5, official=True)
    folder = root / "cifar-10-batches-py"
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr("backbones.data.cifar10._OFFICIAL_MD5", sums)
    for split in ("train", "train45k", "val5k", "test"):
        assert read_cifar10(root, split, official=True).official is True
    before = read_cifar10(root, "train").fingerprint()
    write_batch(folder / "data_batch_5", 99)
    with pytest.raises(DataError, match="data_batch_5: md5"):
        read_cifar10(root, "train", official=True)
    # Other pixels are other data, even with the same labels.
    batch = pickle.loads((folder / "data_batch_4").read_bytes(), encoding="bytes")
    batch[b"data"] = batch[b"data"] ^ 1
    write_batch(folder / "data_batch_5", 5)
    assert read_cifar10(root, "train").fingerprint() == before
    (folder / "data_batch_4").write_bytes(pickle.dumps(batch, protocol=2))
    assert read_cifar10(root, "train").fingerprint() != before


class Ballast:
    """A pickle of this makes an array of 20,000 pictures out of one, by strides of 0."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.ndarray, ((20_000, 3072), "u1", bytes(3072), 0, (0, 0))


def test_few_bytes_that_unpack_to_much_are_refused(root: Path) -> None:
    path = root / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({b"data": Ballast(), b"labels": [0] * 20_000}))
    with pytest.raises(DataError, match="test_batch: not a batch of CIFAR-10"):
        read_cifar10(root, "test")
    nested: Any = [0] * 10
    for _ in range(9):  # 10^10 numbers, in 200 bytes
        nested = [nested] * 10
    pixels = np.zeros((10, 3072), np.uint8)
    path.write_bytes(pickle.dumps({b"data": pixels, b"labels": nested}))
    with pytest.raises(DataError, match=r"no label in 0\.\.9 for each of 10 pictures"):
        read_cifar10(root, "test")
    for odd in (np.zeros((10, 1), int), np.array(3), "0123456789", [0.0] * 10, None):
        path.write_bytes(pickle.dumps({b"data": pixels, b"labels": odd}))
        with pytest.raises(DataError, match="test_batch: not a batch of CIFAR-10"):
            read_cifar10(root, "test")


def test_a_set_too_small_to_be_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    for number in range(1, 6):
        write_batch(tmp_path / "cifar-10-batches-py" / f"data_batch_{number}", number, count=1)
    with pytest.raises(DataError, match="5 pictures are too few for a split val5k"):
        read_cifar10(tmp_path, "val5k")


def test_a_huge_file_is_refused_before_it_is_read(root: Path) -> None:
    with (root / "cifar-10-batches-py" / "test_batch").open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(DataError, match="test_batch: has more than 256 MiB"):
        read_cifar10(root, "test")
