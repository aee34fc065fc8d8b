"""Class folders, and pictures of every kind."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.data.folder import read_folder
from backbones.data.pictures import read_image, read_image_size
from backbones.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train/{ape,bee}/, two and one pictures of one colour each."""
    for place, name in enumerate(["bee/x.JPEG", "ape/b.png", "ape/a.jpg"]):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + place, 6), (40 * place, 100, 200)).save(path)
    (tmp_path / "train" / "ape" / "list.txt").write_text("no picture")
    return tmp_path


def test_classes_and_pictures_come_sorted(root: Path) -> None:
    dataset = read_folder(root, "train")
    assert dataset.class_names == ["ape", "bee"]
    assert dataset.labels.tolist() == [0, 0, 1]
    assert [Path(dataset.name(i)).name for i in range(3)] == ["a.jpg", "b.png", "x.JPEG"]
    assert [dataset.picture(i).size for i in range(3)] == [(10, 6), (9, 6), (8, 6)]
    assert np.asarray(dataset.picture(1))[0, 0].tolist() == [40, 100, 200]


def test_a_network_s_classes_decide_the_labels(root: Path) -> None:
    dataset = read_folder(root, "train", ["cow", "bee", "ape"])
    assert dataset.labels.tolist() == [2, 2, 1]
    with pytest.raises(DataError, match=r"bee.*is not one of the network's 2 classes"):
        read_folder(root, "train", ["ape", "cow"])


def test_the_fingerprint_tells_other_files_apart_but_not_another_place(root: Path, tmp_path: Path) -> None:
    before = read_folder(root, "train").fingerprint()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (root / "train").rename(moved / "train")
    assert read_folder(moved, "train").fingerprint() == before
    (moved / "train/bee/x.JPEG").rename(moved / "train/bee/y.JPEG")
    assert read_folder(moved, "train").fingerprint() != before


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="nowhere/train: no such folder"):
        read_folder(root / "nowhere", "train")
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no class folders"):
        read_folder(root, "empty")
    (root / "train" / "cat").mkdir()
    with pytest.raises(DataError, match="train/cat: holds no pictures"):
        read_folder(root, "train")


GREY = np.linspace(0, 255, 48).reshape(6, 8)


@pytest.mark.parametrize(
    ("picture", "ending"),
    [
        (Image.fromarray(GREY.astype(np.uint8)), "png"),
        (Image.fromarray(GREY.astype(np.uint8)).convert("P"), "png"),
        (Image.fromarray(GREY.astype(np.uint8)).convert("RGBA"), "png"),
        (Image.fromarray(GREY.astype(np.uint8)).convert("LA"), "png"),
        (Image.fromarray((GREY * 256).astype(np.uint16)), "png"),
        (Image.fromarray(GREY.astype(np.uint8)).convert("CMYK"), "tif"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, picture: Image.Image, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    picture.save(path)
    pixels = np.asarray(read_image(path))
    assert read_image_size(path) == (6, 8)
    assert pixels.shape == (6, 8, 3)
    assert np.abs(pixels - GREY[..., None]).max() <= 1


def test_an_orientation_tag_turns_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (8, 6)


def test_a_picture_that_is_none_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "train" / "ape" / "a.jpg"
    whole = path.read_bytes()
    for content in (b"", b"\xff\xd8\xff", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.jpg"):
            read_folder(root, "train").picture(0)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.jpg: no such picture"):
        read_image(path)
    path.write_bytes(whole)
    monkeypatch.setattr("backbones.data.pictures.MAX_PIXELS", 59)
    with pytest.raises(DataError, match=r"a\.jpg: picture too large"):
        read_image(path)


def test_a_pipe_among_pictures_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe.jpg: not a picture .*it is no file"):
        read_image(tmp_path / "pipe.jpg")
