"""The COCO layout: what is read from good files, and what is said about bad ones."""

import copy
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from backbones.errors import DataError
from detection.data.annotations import Annotations
from detection.data.coco import read_coco, read_coco_split


def annotation(identity, image, category, bbox, **more):
    return {"id": identity, "image_id": image, "category_id": category, "bbox": bbox, **more}


GOOD = {
    "images": [
        {"id": 9, "file_name": "nine.png", "height": 12, "width": 20},
        {"id": 4, "file_name": "sub/four.png", "height": 10, "width": 10},
    ],
    "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
    "annotations": [
        annotation(101, 4, 17, [1, 2, 3, 4], area=7.5, iscrowd=0, segmentation=[[0, 0, 1, 1, 2, 2]]),
        annotation(102, 9, 1, [0.5, 1.25, 10, 10], iscrowd=1, area=50),
        annotation(103, 4, 90, [0, 0, 10.75, 10]),
    ],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures/sub").mkdir(parents=True)
    Image.new("RGB", (20, 12)).save(tmp_path / "pictures/nine.png")
    Image.new("RGB", (10, 10)).save(tmp_path / "pictures/sub/four.png")
    return tmp_path


def write(folder, data):
    path = folder / "instances.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_file_is_read_with_its_own_ids(folder):
    data = read_coco(folder / "pictures", write(folder, GOOD))
    a = data.annotations
    assert a.image_ids == [9, 4]
    assert a.class_names == ["person", "cat", "brush"]
    assert a.category_ids == [1, 17, 90]
    assert a.sizes.tolist() == [[12, 20], [10, 10]]
    assert a.labels.tolist() == [1, 2, 3]
    assert a.ignore.tolist() == [True, False, False]
    assert a.areas.tolist() == [50, 7.5, 107.5]
    assert data.target(1).boxes.tolist() == [[1, 2, 4, 6], [0, 0, 10, 10]]
    assert a.boxes[2].tolist() == [0, 0, 10.75, 10]  # metrics see the file's box
    assert pickle.loads(pickle.dumps(data)).load_image(0).shape == (3, 12, 20)
    assert data.load_image(1).shape == (3, 10, 10)


def test_a_models_classes_are_matched_by_name(folder):
    path = write(folder, GOOD)
    a = read_coco(None, path, class_names=["cat", "brush", "person"]).annotations
    assert a.category_ids == [17, 90, 1]
    assert a.labels.tolist() == [3, 1, 2]
    with pytest.raises(DataError, match=r"instances\.json: no category is called 'dog'"):
        read_coco(None, path, class_names=["cat", "brush", "person", "dog"])
    with pytest.raises(DataError, match="category 'person' is not one of the model's"):
        read_coco(None, path, class_names=["cat", "brush"])


def test_scoring_needs_no_pictures(folder):
    data = read_coco(None, write(folder, GOOD))
    with pytest.raises(DataError, match="without a folder of pictures"):
        data.load_image(0)


def changed(path, value):
    """GOOD with the value at `path` replaced; with `...`, taken away."""
    data = copy.deepcopy(GOOD)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not a JSON file that can be read"),
        ("[" * 100_000, "nested too deep"),
        ('{"images": ' + "1" * 5000 + "}", "not a JSON file that can be read"),
        ("[]", "not a COCO annotation file"),
        (changed(["images"], ...), "has no 'images'"),
        (changed(["annotations"], {}), "'annotations' is not a list"),
        (changed(["categories"], []), "no categories"),
        (changed(["images", 0], 7), "image number 1 is 7, not an object"),
        (changed(["images", 0, "id"], ...), "image number 1 has no 'id'"),
        (changed(["images", 0, "id"], 1.5), "'id' is 1.5, not a whole number or a string"),
        (changed(["images", 0, "id"], "9"), "some image ids are numbers and some are strings"),
        (changed(["images", 0, "id"], 4), "image id 4 occurs twice"),
        (changed(["images", 1, "height"], 0), "image 4 has the size 10x0"),
        (changed(["images", 1, "height"], "10"), "image 4: 'height' is '10', not finite numbers"),
        (changed(["images", 1, "width"], ...), "image 4 has no 'width'"),
        (changed(["images", 1, "file_name"], ...), "image 4 has no 'file_name'"),
        (changed(["images", 1, "file_name"], 3), "'file_name' is 3, not a string"),
        (changed(["images", 1, "file_name"], "../x.png"), r"image 4: file_name '\.\./x\.png' leads out"),
        (changed(["images", 1, "file_name"], "/etc/passwd"), "leads out"),
        (changed(["images", 1, "file_name"], "none.png"), r"image 4: its picture .*none\.png is missing"),
        (changed(["categories", 1, "id"], 17), "category id 17 occurs twice"),
        (changed(["categories", 1, "id"], True), "'id' is True, not a whole number"),
        (changed(["categories", 1, "name"], "cat"), "category name cat occurs twice"),
        (changed(["categories", 1, "name"], ...), "category 1 has no 'name'"),
        (changed(["annotations", 1, "id"], 101), "annotation id 101 occurs twice"),
        (changed(["annotations", 1, "id"], ...), "annotation number 2 has no 'id'"),
        (changed(["annotations", 1, "image_id"], 5), "annotation 102: image_id 5 is not listed"),
        (changed(["annotations", 1, "image_id"], [5]), r"annotation 102: 'image_id' is \[5\], not a whole number"),
        (changed(["annotations", 1, "category_id"], 2), "annotation 102: category_id 2 is not listed"),
        (changed(["annotations", 1, "bbox"], ...), "annotation 102 has no 'bbox'"),
        (changed(["annotations", 1, "bbox"], [1, 2, 3]), r"annotation 102: 'bbox' is \[1, 2, 3\], not a list of 4"),
        (changed(["annotations", 1, "bbox"], [1, 2, 3, "4"]), "annotation 102: 'bbox' is .* not finite numbers"),
        (changed(["annotations", 1, "bbox"], [1, 2, 3, None]), "annotation 102: 'bbox'"),
        (changed(["annotations", 1, "bbox"], [1, 2, float("nan"), 4]), "annotation 102: 'bbox' is .*nan"),
        (changed(["annotations", 1, "bbox"], [1, 2, float("inf"), 4]), "annotation 102: 'bbox' is .*inf"),
        (changed(["annotations", 1, "bbox"], [1, 2, 10**400, 4]), "annotation 102: 'bbox'"),
        (changed(["annotations", 1, "bbox"], 7), "annotation 102: 'bbox' is 7"),
        (changed(["annotations", 1, "area"], "big"), "annotation 102: 'area' is 'big'"),
        (changed(["annotations", 1, "iscrowd"], {}), "annotation 102: 'iscrowd'"),
        (
            changed(["annotations", 1, "bbox"], [1, 2, 0, 4]),
            r"annotation 102: box \[1, 2, 0, 4\] has no area; set --data\.bad_boxes repair to clip and drop such boxes",
        ),
        (changed(["annotations", 1, "bbox"], [1, 2, 5, -1]), "has no area"),
        (changed(["annotations", 1, "bbox"], [-2, 2, 5, 5]), "annotation 102: .* reaches outside its 20x12 picture"),
        (changed(["annotations", 1, "bbox"], [20.5, 2, 0.25, 5]), "annotation 102: .* reaches outside its"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(folder, data, message):
    with pytest.raises(DataError, match=rf"instances\.json: .*{message}") as caught:
        read_coco(folder / "pictures", write(folder, data))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"instances_val2017\.json: no such file"):
        read_coco_split(tmp_path, "val2017")
    with pytest.raises(DataError, match="not the name of a split"):
        read_coco_split(tmp_path, "../val2017")


def test_bad_boxes_are_repaired_on_demand(folder):
    data = changed(["annotations", 0, "bbox"], [6, 6, 100, 2])
    data["annotations"][1]["bbox"] = [1, 2, 0, 4]
    repaired = read_coco(None, write(folder, data), bad_boxes="repair")
    assert (repaired.repaired, repaired.dropped) == (1, 1)
    assert repaired.annotations.boxes.tolist() == [[6, 6, 10, 8], [0, 0, 10.75, 10]]
    assert repaired.annotations.offsets.tolist() == [0, 0, 2]
    assert len(read_coco(None, write(folder, data), bad_boxes="keep").annotations.labels) == 3


def test_arrays_that_do_not_fit_are_refused():
    good = {"class_names": ["a"], "image_ids": [1], "sizes": [[5, 5]], "images": [0], "boxes": [[0, 0, 1, 1]]}
    assert Annotations.from_objects(**good, labels=[1]).areas.tolist() == [1]
    with pytest.raises(ValueError, match=r"labels outside 1\.\.1"):
        Annotations.from_objects(**good, labels=[2])
    with pytest.raises(ValueError, match="image_ids are not distinct"):
        Annotations.from_objects(**{**good, "image_ids": [1, 1], "sizes": [[5, 5]] * 2}, labels=[1])


@pytest.mark.data
def test_the_real_subset(data_pack):
    root = data_pack("coco_subset")
    both = read_coco_split(root, "train2017+val2017")
    parts = [read_coco_split(root, split) for split in ("train2017", "val2017")]
    for part, pictures, objects, crowds in zip(parts, (294, 188), (2519, 1692), (25, 20), strict=True):
        assert len(part) == pictures
        assert len(part.annotations.labels) == objects
        assert part.annotations.ignore.sum() == crowds
        assert (np.diff(part.annotations.offsets) == 0).sum() == 2
        assert len(part.annotations.class_names) == 80
    assert both.annotations.image_ids == parts[0].annotations.image_ids + parts[1].annotations.image_ids
    last = len(both) - 1
    assert both.target(last).boxes.equal(parts[1].target(187).boxes)
    assert both.load_image(last).shape[1:] == tuple(both.annotations.sizes[last])
    with pytest.raises(DataError, match="is in two of the splits"):
        read_coco_split(root, "val2017+val2017")
