"""ILSVRC's CLS-LOC layout: what is read from good trees, and what is said about bad ones."""

import os
import re
import shutil
from pathlib import Path

import pytest
from ilsvrc_files import make_ilsvrc, put_picture, put_text
from voc_files import box, obj, xml

from backbones.errors import DataError
from detection.data.cls_loc import read_cls_loc

VAL = "val/ILSVRC2012_val_0000000"
FILES = {
    "train/n02/n02_7": xml(obj("n02", box(0, 0, 19, 11)), obj("n02", box(5, 2, 7, 4))),
    "train/n02/n02_9": None,
    "train/n01/n01_3": xml(obj("n01", box(2, 3, 9, 7))),
    f"{VAL}1": xml(obj("n01", box(1, 1, 5, 5))),
    f"{VAL}2": xml(obj("n02", box(2, 2, 5, 5))),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_ilsvrc(tmp_path / "ILSVRC", "CLS-LOC", FILES, {})


def test_corners_count_from_zero_and_are_inclusive(tree: Path) -> None:
    data = read_cls_loc(tree, "train")
    assert data.annotations.class_names == ["n01", "n02"]
    assert data.annotations.image_ids == ["n01_3", "n02_7"]
    assert data.annotations.sizes.tolist() == [[12, 20]] * 2
    assert data.annotations.boxes.tolist() == [[2, 3, 10, 8], [0, 0, 20, 12], [5, 2, 8, 5]]
    assert data.annotations.labels.tolist() == [1, 2, 2]
    assert data.annotations.offsets.tolist() == [0, 1, 3]
    assert not data.annotations.ignore.any()
    assert data.load_image(1).shape == (3, 12, 20)


def test_training_pictures_without_boxes_are_counted_unless_a_list_says_otherwise(tree: Path) -> None:
    assert read_cls_loc(tree, "train").without_boxes == 1
    put_text(tree / "ImageSets/CLS-LOC/train_loc.txt", "n02/n02_7 1\nn01/n01_3 2\n")
    data = read_cls_loc(tree, "train")
    assert (data.annotations.image_ids, data.without_boxes) == (["n02_7", "n01_3"], 0)
    put_text(tree / "ImageSets/CLS-LOC/train_loc.txt", "n02/n02_7 1\nn02/n02_9 2\n")
    with pytest.raises(DataError, match=r"Annotations/CLS-LOC/train: no n02_9\.xml, of picture .*n02_9\.JPEG"):
        read_cls_loc(tree, "train")


def test_the_folder_above_and_lists_of_other_names(tree: Path) -> None:
    put_text(tree / "ImageSets/CLS-LOC/val_half.txt", "ILSVRC2012_val_00000002 1\n")
    assert read_cls_loc(tree.parent, "val_half", ["n02", "n01"]).annotations.labels.tolist() == [1]
    assert read_cls_loc(tree.parent, "val").annotations.image_ids == [f"ILSVRC2012_val_0000000{i}" for i in (1, 2)]
    with pytest.raises(DataError, match=r"train_other\.txt: no such split; there are: val_half"):
        read_cls_loc(tree, "train_other")


def test_prepared_class_folders_with_the_official_archives_of_boxes(tmp_path: Path) -> None:
    for name in ("train/n01/n01_3", "train/n01/n01_4", "val/n02/ILSVRC2012_val_00000002"):
        put_picture(tmp_path / f"{name}.JPEG")
    put_text(tmp_path / "Annotations/train/n01/n01_3.xml", FILES["train/n01/n01_3"])
    put_text(tmp_path / "Annotations/train/n09/n09_1.xml", xml())  # of a class that is not there
    put_text(tmp_path / "Annotations/val/ILSVRC2012_val_00000002.xml", FILES[f"{VAL}2"])
    data = read_cls_loc(tmp_path, "train")
    assert (data.annotations.image_ids, data.without_boxes) == (["n01_3"], 1)
    assert read_cls_loc(tmp_path, "val").annotations.boxes.tolist() == [[2, 2, 6, 6]]


def test_the_development_kits_blacklist(tree: Path) -> None:
    put_text(tree / "devkit/data/ILSVRC2015_clsloc_validation_blacklist.txt", "2\n\n")
    assert read_cls_loc(tree, "val").annotations.ignore.tolist() == [False, True]
    assert not read_cls_loc(tree, "train").annotations.ignore.any()
    put_text(tree / "devkit/data/ILSVRC2015_clsloc_validation_blacklist.txt", "2\nx\n")
    with pytest.raises(DataError, match=r"blacklist\.txt, line 2: 'x' is not the number of a picture"):
        read_cls_loc(tree, "val")


def test_annotations_of_a_picture_of_another_size(tree: Path) -> None:
    put_picture(tree / "Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", (40, 12))
    with pytest.raises(DataError, match=r"00000001\.xml: says that its picture is of 20x12 pixels, .* is of 40x12"):
        read_cls_loc(tree, "val")
    repaired = read_cls_loc(tree, "val", bad_boxes="repair")
    assert repaired.annotations.boxes.tolist() == [[2, 1, 12, 6], [2, 2, 6, 6]]
    assert repaired.annotations.sizes.tolist() == [[12, 40], [12, 20]]
    assert repaired.repaired == 1
    kept = read_cls_loc(tree, "val", bad_boxes="keep")
    assert kept.annotations.boxes.tolist() == [[1, 1, 6, 6], [2, 2, 6, 6]]


def test_whether_a_box_has_an_area_is_asked_of_the_file_and_what_is_left_is_counted(tree: Path) -> None:
    """Pictures of half and of twice the size that their files speak of."""
    for number, size in ((1, (10, 6)), (2, (40, 24))):
        put_picture(tree / f"Data/CLS-LOC/{VAL}{number}.JPEG", size)
    small = [box(2, 2, 3, 9), box(4, 4, 4, 9)]  # two pixels wide: one here; one pixel wide
    large = [box(2, 2, 2, 9), box(12, 1, 25, 5)]  # one pixel wide: two here; reaching outside
    put_text(tree / f"Annotations/CLS-LOC/{VAL}1.xml", xml(*(obj("n01", each) for each in small)))
    put_text(tree / f"Annotations/CLS-LOC/{VAL}2.xml", xml(*(obj("n02", each) for each in large)))
    data = read_cls_loc(tree, "val", bad_boxes="repair")
    assert data.annotations.boxes.tolist() == [[1, 1, 2, 5], [24, 2, 40, 12]]
    assert (data.repaired, data.dropped) == (2, 2)


def test_a_set_of_which_no_box_is_left(tree: Path) -> None:
    for name in (f"{VAL}1", f"{VAL}2"):
        put_text(tree / f"Annotations/CLS-LOC/{name}.xml", xml(obj("n01", box(7, 1, 7, 5))))
    with pytest.raises(DataError, match=r"split 'val': none of its 2 boxes has an area inside its picture"):
        read_cls_loc(tree, "val", bad_boxes="repair")


@pytest.mark.parametrize("corner", ["1e10", "-1e10", "1e308"])
def test_corners_beyond_all_pictures(tree: Path, corner: str) -> None:
    put_text(tree / f"Annotations/CLS-LOC/{VAL}2.xml", xml(obj("n02", box(1, 1, corner, 5))))
    for bad_boxes in ("error", "repair", "keep"):
        with pytest.raises(DataError, match=r"00000002\.xml: a box of 'n02' reaches further than 1,000,000,000 pixels"):
            read_cls_loc(tree, "val", bad_boxes=bad_boxes)


def test_a_training_picture_lies_in_the_folder_of_its_class(tree: Path) -> None:
    pictures, boxes = tree / "Data/CLS-LOC/train", tree / "Annotations/CLS-LOC/train"
    put_text(tree / "ImageSets/CLS-LOC/train_loc.txt", "n02/n02_7 1\nn02/n01_3 2\n")
    with pytest.raises(
        DataError, match=r"train_loc\.txt: says that picture 'n01_3' is in n02, it is in .*train/n01: mend the list$"
    ):
        read_cls_loc(tree, "train")
    (tree / "ImageSets/CLS-LOC/train_loc.txt").write_text("n02/n02_7 1\nn01/n01_3 2\n")
    assert len(read_cls_loc(tree, "train")) == 2
    put_text(boxes / "n01/n01_3.xml", xml(obj("n02")))
    with pytest.raises(DataError, match=r"n01_3\.xml: has objects of 'n02', but .*n01_3\.JPEG is of 'n01'"):
        read_cls_loc(tree, "train")
    (tree / "ImageSets/CLS-LOC/train_loc.txt").unlink()
    with pytest.raises(DataError, match=r"n01_3\.xml: has objects of 'n02', but .*n01_3\.JPEG is of 'n01'"):
        read_cls_loc(tree, "train")
    put_text(boxes / "n01/n01_3.xml", xml(obj("a name in words")))  # folders and objects are named in two ways
    assert read_cls_loc(tree, "train").annotations.class_names == ["a name in words", "n02"]
    for path in sorted(pictures.glob("*/*.JPEG")):  # no class folders
        path.rename(pictures / path.name)
    put_text(tree / "ImageSets/CLS-LOC/train_loc.txt", "n02/n02_7 1\nn01/n01_3 2\n")
    assert len(read_cls_loc(tree, "train")) == 2


def test_names_that_are_not_utf8(tree: Path) -> None:
    odd = os.fsencode(tree / "Data/CLS-LOC/train/n01") + b"/n01_\xff.JPEG"
    with open(odd, "wb"):
        pass
    with pytest.raises(DataError, match=r"n01_.*udcff\.JPEG: its name is not UTF-8") as error:
        read_cls_loc(tree, "train")
    assert str(error.value).isprintable()


def test_bad_boxes_and_pictures_of_which_none_is_left(tree: Path) -> None:
    put_text(tree / f"Annotations/CLS-LOC/{VAL}1.xml", xml(obj("n01", box(7, 1, 7, 5))))
    put_text(tree / f"Annotations/CLS-LOC/{VAL}2.xml", xml(obj("n02", box(2, 2, 25, 5)), obj("n02", box(9, 9, 2, 2))))
    with pytest.raises(DataError, match=r"00000001\.xml: box \(7, 1, 7, 5\) of 'n01' has no area \(2 more"):
        read_cls_loc(tree, "val")
    data = read_cls_loc(tree, "val", bad_boxes="repair")
    assert data.annotations.image_ids == ["ILSVRC2012_val_00000002"]
    assert data.annotations.boxes.tolist() == [[2, 2, 20, 6]]
    assert (data.repaired, data.dropped) == (1, 2)
    assert data.load_image(0).shape == (3, 12, 20)
    assert len(read_cls_loc(tree, "val", bad_boxes="keep").annotations.boxes) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (xml(), "00000002.xml: has no objects"),
        (xml(obj("n02"), obj("n01")), "00000002.xml: has objects of two classes, 'n02' and 'n01'"),
        (xml(obj("n03")), "00000002.xml: class 'n03' is not one of the 2 that are known"),
        ("<annotation>", "00000002.xml: not an XML file that can be read"),
        (xml(obj("n02", box("x", 1, 2, 2))), "00000002.xml: <bndbox/xmin> of <object> is 'x', not a number"),
        ('<!DOCTYPE a [<!ENTITY b "b">]><annotation>&b;</annotation>', "00000002.xml: has a DOCTYPE"),
    ],
)
def test_bad_annotations_are_named(tree: Path, text: str, message: str) -> None:
    put_text(tree / f"Annotations/CLS-LOC/{VAL}2.xml", text)
    with pytest.raises(DataError, match=re.escape(message)):
        read_cls_loc(tree, "val", ["n01", "n02"])


def test_bad_trees_are_named(tree: Path) -> None:
    with pytest.raises(DataError, match=r"split '\.\./val' is neither train nor val"):
        read_cls_loc(tree, "../val")
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        read_cls_loc(tree / "nowhere", "val")
    with pytest.raises(DataError, match=r"Data: no CLS-LOC set \(Data/CLS-LOC and"):
        read_cls_loc(tree / "Data", "val")
    put_text(tree / "ImageSets/CLS-LOC/val.txt", "ILSVRC2012_val_00000001 1\n../../x 2\n")
    with pytest.raises(DataError, match=r"val\.txt, line 2: '\.\./\.\./x 2' does not name a picture"):
        read_cls_loc(tree, "val")
    put_text(tree / "ImageSets/CLS-LOC/val.txt", "ILSVRC2012_val_00000009 1\n")
    with pytest.raises(DataError, match=r"picture 'ILSVRC2012_val_00000009' of .*val\.txt is missing"):
        read_cls_loc(tree, "val")
    put_text(tree / "ImageSets/CLS-LOC/val.txt", "ILSVRC2012_val_00000001 1\n" * 2)
    with pytest.raises(DataError, match=r"picture 'ILSVRC2012_val_00000001' is listed twice"):
        read_cls_loc(tree, "val")
    (tree / "ImageSets/CLS-LOC/val.txt").unlink()
    (tree / f"Annotations/CLS-LOC/{VAL}2.xml").unlink()
    with pytest.raises(
        DataError, match=r"CLS-LOC/val: no ILSVRC2012_val_00000002\.xml, of picture \S+00000002\.JPEG: put it there$"
    ):
        read_cls_loc(tree, "val")
    put_picture(tree / "Data/CLS-LOC/train/n01/n02_7.JPEG")
    with pytest.raises(DataError, match=r"n02_7\.JPEG: .*n02_7\.JPEG has the same name"):
        read_cls_loc(tree, "train")
    (tree / "Data/CLS-LOC/train/n01/n02_7.JPEG").unlink()
    shutil.rmtree(tree / "Annotations/CLS-LOC/train")
    with pytest.raises(DataError, match=r"Annotations/CLS-LOC/train: no such folder \(the boxes of 'train'\)"):
        read_cls_loc(tree, "train")
    (tree / "Annotations/CLS-LOC/train").mkdir()
    with pytest.raises(DataError, match=r"holds no annotation file of any picture of 'train'"):
        read_cls_loc(tree, "train")
