"""`prepare_data.py pasted`: the small localisation set that it makes, and what it refuses."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.data.cls_loc import read_cls_loc
from detection.data.preparing.pasted import draw_box
from detection.evaluate.localisation import localisation_errors, picture_sized
from detection.prepare import main

COLOURS = {"n01": (250, 0, 0), "n02": (0, 250, 0)}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Class folders whose pictures are of one colour each."""
    for split, count in (("train", 6), ("val", 3)):
        for name, colour in COLOURS.items():
            (tmp_path / "classes" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (64, 64), colour).save(tmp_path / "classes" / split / name / f"{i}.png")
    return tmp_path / "classes"


@pytest.fixture
def backgrounds(tmp_path: Path) -> Path:
    """Grey pictures, the first of which (for validation) is darker than all others."""
    (tmp_path / "backgrounds").mkdir()
    for i in range(4):
        grey = 60 if i == 0 else 120 + 20 * i
        Image.new("RGB", (90, 70), (grey,) * 3).save(tmp_path / "backgrounds" / f"{i}.png")
    return tmp_path / "backgrounds"


def make(classes: Path, output: Path, *more: str) -> Path:
    main(["pasted", "--pictures", str(classes), "--output", str(output), "--width", "96", "--height", "80", *more])
    return output


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_boxes_are_where_pictures_were_pasted(classes: Path, backgrounds: Path, tmp_path: Path) -> None:
    made = make(classes, tmp_path / "made", "--backgrounds", str(backgrounds))
    for split, count in (("train", 12), ("val", 6)):
        data = read_cls_loc(made, split)
        assert (len(data), data.without_boxes, data.annotations.class_names) == (count, 0, ["n01", "n02"])
        assert np.bincount(data.annotations.labels).tolist() == [0, count // 2, count // 2]
        for i in range(count):
            pixels = data.load_image(i).numpy().astype(int)
            assert pixels.shape == (3, 80, 96)
            x1, y1, x2, y2 = data.annotations.boxes[i].astype(int)
            colour = COLOURS[data.annotations.class_names[data.annotations.labels[i] - 1]]
            inside = pixels[:, y1 + 3 : y2 - 3, x1 + 3 : x2 - 3]
            assert np.abs(inside - np.reshape(colour, (3, 1, 1))).max() < 40
            grey = np.abs(pixels - pixels[:1]).max(axis=0) < 40
            grey[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3] = True
            assert grey.all()
            outside = np.ones((80, 96), dtype=bool)
            outside[max(0, y1 - 8) : y2 + 8, max(0, x1 - 8) : x2 + 8] = False
            if outside.any():
                assert (pixels[0][outside].mean() < 90) == (split == "val")  # no split sees the other's backgrounds


def test_files_are_called_as_the_official_ones_and_a_seed_decides_all(classes: Path, tmp_path: Path) -> None:
    first = content(make(classes, tmp_path / "a", "--count", "3"))
    names = [name for name in first if "Data" in name]
    assert [name for name in names if "/val/" in name] == [
        f"Data/CLS-LOC/val/ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2, 3)
    ]
    for name in names:
        if "/train/" in name:
            assert name.split("/")[3] == name.split("/")[4].split("_")[0]
    assert len(names) == 6
    assert content(make(classes, tmp_path / "b", "--count", "3")) == first
    assert content(make(classes, tmp_path / "c", "--count", "3", "--seed", "1")) != first
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "classes"]  # nothing is left lying about


def test_the_whole_picture_is_mostly_wrong_and_no_object_is_tiny(classes: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(rng, 192, 160) for _ in range(2000)])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [192, 160]).all()
    assert sides.min() > 0.2 * 160
    shares = sides.prod(axis=1) / (192 * 160)
    assert 0.08 < shares.min() < shares.max() < 0.56
    assert 0.8 < (shares < 0.5).mean() < 0.95
    data = read_cls_loc(make(classes, tmp_path / "made"), "train")
    assert localisation_errors(data.annotations, *picture_sized(data.annotations))["top5_localisation_error"] > 50


def test_what_is_refused(classes: Path, backgrounds: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    start = ("pasted", "--pictures", str(classes), "--output", str(tmp_path / "made"))
    assert "classes: is there already" in refused(*start[:3], "--output", str(classes))
    assert "width 8: give 32 to 4096 pixels" in refused(*start, "--width", "8")
    assert "count 0: give 1 or more" in refused(*start, "--count", "0")
    assert "no such folder of backgrounds" in refused(*start, "--backgrounds", str(tmp_path / "none"))
    assert "holds 0 pictures; backgrounds want two" in refused(*start, "--backgrounds", str(classes))
    assert "train: no such folder" in refused("pasted", "--pictures", str(backgrounds), *start[3:])
    (classes / "val/n02/2.png").write_bytes(b"no picture")
    assert "val/n02/2.png: not a picture" in refused(*start)
    assert sorted(os.listdir(tmp_path)) == ["backgrounds", "classes"]
