"""Splits by their usual names, and test sets whose annotations are not published."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from voc_files import make_year, obj, xml

from backbones.errors import DataError
from detection.data.annotations import DetectionDataset
from detection.data.readers import read_split
from detection.data.voc import read_voc

LISTS = {  # year -> list -> pictures
    "VOC2007": {"trainval": ["000001", "000002"], "test": ["000003"]},
    "VOC2012": {"trainval": ["2008_000001"], "train": ["2008_000001"], "test": ["2008_000009"]},
}


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    for year, lists in LISTS.items():
        make_year(tmp_path / year, {p: xml(obj()) for pictures in lists.values() for p in pictures}, lists)
    return tmp_path


def read(name: str, root: Path, split: str, classes: list[str] | None = None, **more: bool) -> DetectionDataset:
    return read_split(
        name,
        str(root),
        split,
        classes,
        bad_boxes="error",
        drawn_size=1,
        drawn_count=1,
        **more,
    )


@pytest.mark.parametrize(
    ("union", "pictures"),
    [
        ("07", ["000001", "000002"]),
        ("12", ["2008_000001"]),
        ("07+12", ["000001", "000002", "2008_000001"]),
        ("07++12", ["000001", "000002", "000003", "2008_000001"]),
    ],
)
def test_the_papers_unions(devkit: Path, union: str, pictures: list[str]) -> None:
    data = read("voc", devkit, union)
    assert data.annotations.image_ids == pictures
    assert data.annotated
    assert data.load_image(len(pictures) - 1).shape == (3, 12, 20)


def test_a_union_finds_the_years_beside_the_one_that_is_given(devkit: Path) -> None:
    assert len(read("voc", devkit / "VOC2007", "07")) == 2
    with pytest.raises(DataError, match=r"split '07\+12' is VOC2007/trainval\+VOC2012/trainval, and .* VOC2012 \(with"):
        read("voc", devkit / "VOC2007", "07+12")


def test_missing_years_are_named(devkit: Path) -> None:
    shutil.rmtree(devkit / "VOC2007")
    for union in ("07+12", "07++12"):
        with pytest.raises(DataError, match=r"there is no year folder VOC2007 \(with ImageSets/Main\) in it"):
            read("voc", devkit, union)
    assert len(read("voc", devkit, "12")) == 1
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read("voc", devkit / "nowhere", "07+12")


def test_a_list_may_be_called_as_a_union(devkit: Path) -> None:
    make_year(devkit / "VOC2007", {}, {"07": ["000003"]})
    assert read("voc", devkit, "VOC2007/07").annotations.image_ids == ["000003"]
    assert len(read("voc", devkit, "07")) == 2
    with pytest.raises(DataError, match="write the split as VOC2007/07"):  # joined, it is a list like any other
        read("voc", devkit, "07+VOC2012/test")


def test_a_voc_test_set_without_annotations(devkit: Path) -> None:
    Image.new("RGB", (31, 17)).save(devkit / "VOC2012/JPEGImages/2008_000009.jpg")
    (devkit / "VOC2012/Annotations/2008_000009.xml").unlink()
    with pytest.raises(DataError, match=r"2008_000009\.xml: no such annotation file"):
        read("voc", devkit, "VOC2012/test", ["cat", "dog"])
    data = read("voc", devkit, "VOC2012/test", ["cat", "dog"], need_annotations=False)
    assert not data.annotated
    assert data.annotations.class_names == ["cat", "dog"]
    assert data.annotations.sizes.tolist() == [[17, 31]]
    assert data.target(0).boxes.shape == (0, 4)
    assert data.load_image(0).shape == (3, 17, 31)
    with pytest.raises(DataError, match="has no annotations, so its classes are not known"):
        read("voc", devkit, "VOC2012/test", need_annotations=False)
    # Some of the pictures have one: that it is missing for another is a mistake.
    with pytest.raises(DataError, match=r"2008_000009\.xml: no such annotation file"):
        read_voc(devkit, "VOC2012/trainval+VOC2012/test", ["cat"], need_annotations=False)
    assert read("voc", devkit, "VOC2012/trainval", ["cat"], need_annotations=False).annotated


def coco_file(root: Path, name: str, folder: str, identities: list[int], objects: bool = True) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    images = [{"id": i, "file_name": f"{i:012d}.png", "height": 12, "width": 20} for i in identities]
    for image in images:
        Image.new("RGB", (20, 12)).save(root / folder / str(image["file_name"]))
    annotations = [{"id": i, "image_id": i, "category_id": 18, "bbox": [1, 2, 3, 4]} for i in identities]
    data = {"images": images, "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]}
    text = json.dumps(data | ({"annotations": annotations} if objects else {}))
    (root / f"annotations/{'instances' if objects else 'image_info'}_{name}.json").write_text(text)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    coco_file(tmp_path, "train2014", "train2014", [1, 2])
    coco_file(tmp_path, "minival2014", "val2014", [3])
    coco_file(tmp_path, "valminusminival2014", "val2014", [4, 5])
    coco_file(tmp_path, "test-dev2017", "test2017", [6], objects=False)
    coco_file(tmp_path, "test-dev2015", "test2015", [7], objects=False)
    return tmp_path


def test_pictures_of_cocos_lists_lie_in_their_splits_folder(coco: Path) -> None:
    data = read("coco", coco, "train2014+valminusminival2014")
    assert data.annotations.image_ids == [1, 2, 4, 5]
    assert data.load_image(3).shape == (3, 12, 20)
    assert len(read("coco", coco, "minival2014").annotations.labels) == 1


@pytest.mark.parametrize(("split", "identity"), [("test-dev2017", 6), ("test-dev2015", 7)])
def test_a_coco_test_set_without_annotations(coco: Path, split: str, identity: int) -> None:
    with pytest.raises(DataError, match=rf"instances_{split}\.json: no such file; .*image_info_{split}\.json has no"):
        read("coco", coco, split)
    data = read("coco", coco, split, need_annotations=False)
    assert (data.annotated, data.annotations.image_ids, len(data.annotations.labels)) == (False, [identity], 0)
    assert data.annotations.category_ids == [1, 18]  # result files need COCO's ids
    assert data.annotations.class_names == ["person", "dog"]
    assert data.load_image(0).shape == (3, 12, 20)
    with pytest.raises(DataError, match="some have annotations and some have not"):
        read("coco", coco, f"train2014+{split}", need_annotations=False)
    assert read("coco", coco, "train2014", need_annotations=False).annotated
