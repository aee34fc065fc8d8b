"""The VOC layout: what is read from good files, and what is said about bad ones."""

import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from voc_files import BOX, box, make_year, obj, xml

from backbones.errors import DataError
from detection.data.pictures import read_image
from detection.data.voc import read_voc


@pytest.fixture
def year(tmp_path):
    files = {
        "a": xml(obj(), obj("dog", difficult="<difficult>1</difficult>")),
        "b": xml(),
        "c": xml(obj("ant", more="<part>" + BOX + "</part>")),
    }
    return make_year(tmp_path / "VOC2007", files, {"train": ["b", "a"], "val": ["c"], "trainval": ["a", "b", "c"]})


def test_boxes_become_zero_based_and_exclusive(year):
    data = read_voc(year, "train")
    assert data.annotations.image_ids == ["b", "a"]
    assert data.annotations.class_names == ["cat", "dog"]
    assert data.annotations.sizes.tolist() == [[12, 20], [12, 20]]
    assert len(data.target(0).labels) == 0
    assert data.target(0).boxes.shape == (0, 4)
    target = data.target(1)
    assert target.boxes.tolist() == [[1, 2, 10, 8]] * 2
    assert target.boxes.dtype == torch.float32
    assert target.labels.tolist() == [1, 2]
    assert target.ignore.tolist() == [False, True]
    picture = data.load_image(1)
    assert picture.shape == (3, 12, 20)
    assert picture.dtype == torch.uint8
    assert picture[0].min() > 200
    assert picture[2].max() < 50


def test_splits_are_joined_and_years_resolved(year):
    assert read_voc(year, "train+val").annotations.image_ids == ["b", "a", "c"]
    assert read_voc(year, "VOC2007/val").annotations.image_ids == ["c"]
    assert read_voc(year.parent, "val").annotations.image_ids == ["c"]
    make_year(year.parent / "VOC2012", {"z": xml(obj("cow"))}, {"trainval": ["z"]})
    data = read_voc(year.parent, "VOC2007/trainval+VOC2012/trainval")
    assert data.annotations.image_ids == ["a", "b", "c", "z"]
    assert data.annotations.class_names == ["ant", "cat", "cow", "dog"]
    with pytest.raises(DataError, match=r"VOC2007, VOC2012.*write the split as VOC2007/trainval"):
        read_voc(year.parent, "trainval")


def test_given_classes_fix_the_labels(year):
    data = read_voc(year, "val", class_names=["dog", "cat", "ant"])
    assert data.annotations.labels.tolist() == [3]
    with pytest.raises(DataError, match=r"c\.xml: class 'ant' is not one of the detector's classes \(dog, cat\)"):
        read_voc(year, "val", class_names=["dog", "cat"])


def test_sizes_come_from_the_picture_where_the_file_has_none(tmp_path):
    zeros = "<size><width>0</width><height>0</height></size>"
    files = {"a": xml(obj(), size=""), "b": xml(obj(), size=zeros)}
    year = make_year(tmp_path / "y", files, {"t": ["a", "b"]}, suffix=".PNG")
    assert read_voc(year, "t").annotations.sizes.tolist() == [[12, 20], [12, 20]]


def test_annotations_can_be_read_without_pictures(year):
    shutil.rmtree(year / "JPEGImages")
    data = read_voc(year, "val", need_pictures=False)
    assert data.annotations.boxes.tolist() == [[1, 2, 10, 8]]
    with pytest.raises(DataError, match=r"c\.jpg: no such picture"):
        data.load_image(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            xml(obj(box=box(5, 3, 5, 8))),
            r"a\.xml: box \(5, 3, 5, 8\) of 'cat' has no area; set --data\.bad_boxes",
        ),
        (xml(obj(box=box(5, 8, 9, 3))), "has no area"),
        (xml(obj(box=box(5, 3, 22, 8))), r"\(5, 3, 22, 8\) of 'cat' reaches outside its 20x12 picture"),
        (xml(obj(box=box(-1, 3, 9, 8))), "reaches outside"),
        (xml(obj(box=box("x", 3, 9, 8))), r"a\.xml: <bndbox/xmin> of <object> is 'x', not a number"),
        (xml(obj(box=box("nan", 3, 9, 8))), "is 'nan', not a number"),
        (xml(obj(box=box("1e999", 3, 9, 8))), "not a number"),
        (xml(obj(box="")), r"<bndbox/xmin> of <object> is missing"),
        (xml(obj(name="")), r"a\.xml: an object without a name"),
        (xml(obj(difficult="<difficult>2</difficult>")), r"'cat': difficult is 2"),
        (xml(size="<size><width>1e300</width><height>1</height></size>"), "can't be"),
        ("<annotation><object>", r"a\.xml: not an XML file that can be read"),
        ("", r"a\.xml: not an XML file"),
        ("<?xml version='1.0' encoding='no-such'?><annotation/>", r"a\.xml: not an XML file"),
        ("<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><annotation>&e;</annotation>", "DOCTYPE with entities"),
        ("<!DOCTYPE a [<!ENTITY e 'ha'><!ENTITY f '&e;&e;'>]><annotation>&f;</annotation>", "DOCTYPE with entities"),
    ],
)
def test_a_bad_annotation_file_is_named(tmp_path, text, message):
    year = make_year(tmp_path / "y", {"a": text}, {"t": ["a"]})
    with pytest.raises(DataError, match=message):
        read_voc(year, "t", class_names=["cat"])


def test_bad_boxes_are_repaired_on_demand(tmp_path):
    boxes = [box(2, 3, 10, 8), box(5, 3, 5, 8), box(5, 3, 40, 8), box(30, 3, 40, 8), box(0, 0, 21, 12)]
    year = make_year(tmp_path / "y", {"a": xml(*(obj(box=b) for b in boxes))}, {"t": ["a"]})
    data = read_voc(year, "t", bad_boxes="repair")
    assert (data.repaired, data.dropped) == (1, 2)
    # The last box reaches a pixel outside: within what is clipped without a word.
    assert data.target(0).boxes.tolist() == [[1, 2, 10, 8], [4, 2, 20, 8], [0, 0, 20, 12]]
    kept = read_voc(year, "t", bad_boxes="keep")
    assert kept.annotations.boxes.tolist()[3] == [29, 2, 40, 8]


def test_missing_and_repeated_things_are_named(year):
    with pytest.raises(DataError, match=r"nope\.txt: no such split; there are: train, trainval, val"):
        read_voc(year, "nope")
    with pytest.raises(DataError, match="'b' is listed twice"):
        read_voc(year, "trainval+train")
    with pytest.raises(DataError, match="neither a VOC year folder"):
        read_voc(year / "Annotations", "train")
    with pytest.raises(DataError, match="no such folder"):
        read_voc(year / "nowhere", "train")
    with pytest.raises(DataError, match="not a VOC year folder"):
        read_voc(year.parent, "VOC2010/train")
    with pytest.raises(DataError, match="not of the form"):
        read_voc(year, "../VOC2007/train")
    (year / "JPEGImages/c.jpg").unlink()
    with pytest.raises(DataError, match=r"Annotations/c\.xml: its picture .*JPEGImages/c\.jpg is missing"):
        read_voc(year, "val")
    (year / "Annotations/b.xml").unlink()
    with pytest.raises(DataError, match=r"b\.xml: no such annotation file"):
        read_voc(year, "train")


@pytest.mark.parametrize("line", ["../a", "a 1", "x\\y"])
def test_a_bad_line_of_a_split_is_named(year, line):
    (year / "ImageSets/Main/train.txt").write_text(f"a\n{line}\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: .* is not the name of a picture"):
        read_voc(year, "train")


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "I;16", "RGBA", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    grey = np.array([[0, 102, 255]], dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    image.save(path)
    picture = read_image(path)
    assert picture.shape == (3, 1, 3)
    assert picture.is_contiguous()
    expected = grey if mode != "1" else np.asarray(image.convert("L"))
    assert np.abs(picture.numpy().astype(int) - expected).max() <= 1


def test_bad_pictures_are_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.jpg: no such picture"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="not a picture"):
        read_image(tmp_path)
    path = tmp_path / "p.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"p\.jpg: truncated or corrupt"):
        read_image(path)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # PIL would start Ghostscript
    with pytest.raises(DataError, match=r"p\.jpg: not a picture"):
        read_image(path)
    path.write_bytes(whole)
    monkeypatch.setattr("backbones.data.pictures.MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(DataError, match="too large"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    with pytest.raises(DataError, match="too large"):
        read_image(path)


@pytest.mark.data
def test_blood_cells(data_pack):
    devkit = data_pack("bccd") / "VOCdevkit"
    with pytest.raises(DataError, match=r"BloodImage_003(38|43)\.xml: box .* has no area \(1 more in this set\)"):
        read_voc(devkit, "train+val+test")
    start = time.process_time()
    data = read_voc(devkit, "train+val+test", bad_boxes="repair")
    assert time.process_time() - start < 3
    assert len(data) == 364
    assert (data.repaired, data.dropped) == (0, 2)
    names = data.annotations.class_names
    counts = np.bincount(data.annotations.labels)[1:]
    assert dict(zip(names, counts.tolist(), strict=True)) == {"Platelets": 361, "RBC": 4155 - 2, "WBC": 372}
    assert data.load_image(5).shape == (3, 480, 640)
