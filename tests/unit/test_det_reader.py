"""ILSVRC's DET layout: what is read from good trees, and what is said about bad ones."""

from pathlib import Path

import pytest
from ilsvrc_files import make_ilsvrc, put_picture, put_text
from voc_files import box, obj, xml

from backbones.errors import ConfigError, DataError
from detection.data.det import read_det
from detection.data.readers import read_split

OLD, NEW, EXTRA = "ILSVRC2013_train/n02/n02_7", "ILSVRC2014_train_0000/ILSVRC2014_train_00000005", "extra0/x_1"
VAL = "ILSVRC2012_val_0000000"
FILES = {
    f"train/{OLD}": xml(obj("n02", box(0, 0, 19, 11), difficult="")),
    f"train/{NEW}": xml(obj("n01", box(1, 2, 3, 4), difficult=""), obj("n02", box(5, 5, 9, 9), difficult="")),
    f"train/{EXTRA}": None,
    f"val/{VAL}1": xml(obj("n02", box(1, 1, 5, 5)), obj("n01", box(2, 2, 5, 5))),
    f"val/{VAL}2": xml(),
    f"test/{VAL}3".replace("val_0", "test_0"): None,
}
LISTS = {
    "train_1": f"{NEW} 1\n{OLD} -1\n{EXTRA} -1\n",
    "train_2": f"{OLD} 1\n{NEW} 1\n",
    "train_10": f"{OLD} 0\n{EXTRA} -1\n{NEW} 0\n",
    "val": f"{VAL}1 1\n{VAL}2 2\n",
    "val1": f"{VAL}2\n",
    "test": "ILSVRC2012_test_00000003 1\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_ilsvrc(tmp_path / "ILSVRC2015", "DET", FILES, LISTS)


def test_training_pictures_are_those_that_a_class_has_wholly_annotated(tree: Path) -> None:
    data = read_det(tree, "train")
    assert data.annotations.image_ids == [NEW, OLD]  # once each, negative and partly annotated ones left out
    assert data.annotations.class_names == ["n01", "n02"]
    assert data.annotations.boxes.tolist() == [[1, 2, 4, 5], [5, 5, 10, 10], [0, 0, 20, 12]]
    assert data.annotations.labels.tolist() == [1, 2, 2]
    assert data.load_image(1).shape == (3, 12, 20)
    assert read_det(tree, "train_1").annotations.image_ids == [NEW]
    with pytest.raises(DataError, match=r"train_10\.txt: lists no pictures with objects of its class"):
        read_det(tree, "train_10")


def test_lists_are_joined(tree: Path) -> None:
    data = read_det(tree.parent, "train + val1", ["n02", "n01"])
    assert data.annotations.image_ids == [NEW, OLD, f"{VAL}2"]
    assert data.annotations.labels.tolist() == [2, 1, 1]
    assert data.annotations.offsets.tolist() == [0, 2, 3, 3]
    with pytest.raises(DataError, match=r"picture 'ILSVRC2012_val_00000002' is listed twice in split 'val\+val1'"):
        read_det(tree, "val+val1")


def test_a_train_list_where_there_are_none_of_classes(tree: Path) -> None:
    for name in ("train_1", "train_2", "train_10"):
        (tree / f"ImageSets/DET/{name}.txt").unlink()
    put_text(tree / "ImageSets/DET/train.txt", f"{OLD} 7\n")
    assert read_det(tree, "train").annotations.image_ids == [OLD]


def test_a_test_set_is_read_as_pictures_alone(tree: Path) -> None:
    data = read_det(tree, "test", ["n01", "n02"], need_annotations=False)
    assert (len(data), data.annotated, len(data.annotations.labels)) == (1, False, 0)
    assert data.load_image(0).shape == (3, 12, 20)
    for split, names, need in (("test", None, False), ("test", ["n01"], True), ("val+test", ["n01"], False)):
        with pytest.raises(DataError, match=r"Annotations/DET/test: no such folder, so no objects for the split"):
            read_det(tree, split, names, need_annotations=need)


def test_the_development_kits_blacklist(tree: Path) -> None:
    put_text(tree / "devkit/data/ILSVRC2014_det_validation_blacklist.txt", "2 n02\n")
    put_text(tree / "devkit/data/ILSVRC2015_det_validation_blacklist.txt", "1 n02\n2 n01\n\n")
    data = read_det(tree, "val")
    assert [data.annotations.class_names[k - 1] for k in data.annotations.labels] == ["n02", "n01"]
    assert data.annotations.ignore.tolist() == [True, False]
    assert not read_det(tree, "train").annotations.ignore.any()
    put_text(tree / "devkit/data/ILSVRC2015_det_validation_blacklist.txt", "1 n02\n3 n02\n")
    with pytest.raises(DataError, match=r"blacklist\.txt, line 2: '3 n02' is not the number of a picture and a class"):
        read_det(tree, "val")


def test_bad_trees_are_named(tree: Path) -> None:
    with pytest.raises(DataError, match="Data: no DET set"):
        read_det(tree / "Data", "val")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_det(tree / "nowhere", "val")
    for split in ("other", "val/../val", "train+", ""):
        with pytest.raises(DataError, match="is not the name of a list that begins with train, val, test"):
            read_det(tree, split)
    with pytest.raises(DataError, match=r"val2\.txt: no such split; there are: test, train_1, train_10, train_2, val"):
        read_det(tree, "val2")
    with pytest.raises(
        DataError, match=r"ILSVRC2012_val_00000001\.xml: class 'n02' is not one of the 1 that are known"
    ):
        read_det(tree, "val", ["n01"])
    with pytest.raises(DataError, match="no objects in split 'val1'"):
        read_det(tree, "val1")
    put_text(tree / "ImageSets/DET/train_2.txt", f"{OLD} 1\n{NEW} 2\n")
    with pytest.raises(DataError, match=r"train_2\.txt: after '.*00000005' stands '2', not 1, 0 or -1"):
        read_det(tree, "train")
    put_text(tree / "ImageSets/DET/val1.txt", f"{VAL}2\n{VAL}4\n")
    with pytest.raises(DataError, match=r"DET/val/ILSVRC2012_val_00000004\.JPEG: no such picture"):
        read_det(tree, "val1")
    put_picture(tree / f"Data/DET/val/{VAL}4.JPEG")
    with pytest.raises(DataError, match=r"DET/val/ILSVRC2012_val_00000004\.xml: no such annotation file"):
        read_det(tree, "val1")


def test_a_set_of_which_no_box_is_left(tree: Path) -> None:
    put_text(tree / f"Annotations/DET/val/{VAL}1.xml", xml(obj("n02", box(1, 1, 1, 5))))
    with pytest.raises(DataError, match=r"split 'val': none of its 1 boxes has an area inside its picture"):
        read_det(tree, "val", bad_boxes="repair")
    put_text(tree / f"Annotations/DET/val/{VAL}2.xml", xml(obj("n02", box(1, 1, 3, 5))))
    data = read_det(tree, "val", bad_boxes="repair")
    assert data.annotations.offsets.tolist() == [0, 0, 1]  # a picture without objects is a picture of scenes still
    assert (len(data), data.dropped) == (2, 1)


def test_it_is_read_by_its_name(tree: Path) -> None:
    more = {"bad_boxes": "error", "drawn_size": 64, "drawn_count": 1}
    assert read_split("det", str(tree), "val", None, **more).annotations.class_names == ["n01", "n02"]
    with pytest.raises(ConfigError, match="name the folder of the det data"):
        read_split("det", None, "val", None, **more)
