"""`check_data.py` on the COCO layout: what is planted is found, nothing else; it fails where the reader fails."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checked_sets import change, check, coco_data, found, make_coco, write_coco
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbones.data.findings import format_findings
from backbones.errors import DataError
from detection.data.checking.coco import scan_coco
from detection.data.checking.objects import check_boxes_of
from detection.data.checking.table import describe_split
from detection.data.coco import read_coco_split


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return make_coco(tmp_path)


@pytest.mark.parametrize(
    ("plant", "kinds", "said"),
    [
        (
            change("images", 0, "height", value="40"),
            {"bad_entry": 1},
            r"has no height and width .*\(height '40', width 40\)",
        ),
        (change("images", 0, "width", value=1e30), {"bad_entry": 1}, r"image 1: has no .*\(height 40, width 1e\+30\)"),
        (change("images", 0, "file_name", value="../x.jpg"), {"bad_entry": 1}, r"file_name '../x\.jpg' names no file"),
        (
            change("images", 0, "file_name", value="9.jpg"),
            {"missing_picture": 1},
            r"image 1: its picture .* is missing",
        ),
        (
            change("images", 0, "file_name", value="2.jpg"),
            {"duplicate": 1},
            "is the picture of two entries of train2017",
        ),
        (change("images", 0, "file_name", value="x" * 300 + "/1.jpg"), {"missing_picture": 1}, "1.jpg is missing"),
        (change("images", 0, "width", value=39), {"other_size": 1}, r"image 1: says 39x40, and .*1\.jpg is 40x40"),
        (
            change("annotations", 0, "category_id", value=7),
            {"unknown_class": 1, "only_ignored": 1},
            "category_id 7 is not listed",
        ),
        (
            change("annotations", 0, "category_id"),
            {"nameless": 1, "only_ignored": 1},
            "annotation 10 has no category_id",
        ),
        (
            change("annotations", 0, "image_id", value=77),
            {"bad_entry": 1, "only_ignored": 1},
            "annotation 10: image_id 77 is not listed",
        ),
        (
            change("annotations", 0, "bbox", value=[1, 2, 3]),
            {"bad_entry": 1, "only_ignored": 1},
            r"annotation 10: .*bbox \[1, 2, 3\]",
        ),
        (
            change("annotations", 0, "bbox", value=[1, 2, 0, 9]),
            {"no_area": 1},
            r"10: box \[1, 2, 0, 9\] of 'dog'",
        ),
        (change("annotations", 0, "bbox", value=[39, 2, 9, 9]), {"outside": 1}, "annotation 10: .* reaches outside"),
        (
            change("annotations", 0, "bbox", value=[40.2, 2, 0.3, 9]),
            {"outside": 1, "tiny_box": 1},
            "annotation 10: .* reaches outside",
        ),
        (change("annotations", 0, "bbox", value=[30, 2, 10.25, 9]), {"clipped": 1}, "reaches 0.25 pixels outside"),
        (change("annotations", 0, "bbox", value=[1e308, 0, 1e308, 9]), {"outside": 1}, "annotation 10: "),
        (change("annotations", 1, "bbox", value=[4, 4, 20, 9]), {"same_box": 1}, "annotation 11: .* is there before"),
        (change("annotations", 1, "id", value=10), {"bad_entry": 1}, "annotation id 10 occurs twice"),
        (
            change("annotations", 0, "iscrowd", value=1),
            {"only_ignored": 1},
            r"image 1: all its 2 object\(s\) are crowd",
        ),
        (change("images", 1, value=7), {"bad_entry": 3}, "image number 2 has no id"),
        (change("images"), {"bad_entry": 6}, "has no list 'images'"),
        (
            change("categories", 0, "id", value=19),
            {"other_categories": 1, "unknown_class": 4},
            "'dog' has id 18, and 19 in train2017",
        ),
        (
            change("categories", 1, "name", value="cow"),
            {"other_categories": 1, "unknown_class": 1},
            "has no category 'cow', as train2017 has",
        ),
    ],
)
def test_every_kind_is_found_in_coco(
    coco: Path, plant: Callable[[dict], None], kinds: dict[str, int], said: str
) -> None:
    """The first of the kinds is what was planted; the others follow from it."""
    data = coco_data([1, 2])
    plant(data)
    write_coco(coco, "train2017", data)
    messages = found(check("coco", coco, "train2017", "val2017"))
    assert {kind: len(said) for kind, said in messages.items()} == kinds
    assert re.search(said, messages[next(iter(kinds))][0])


def test_one_finding_is_one_finding(coco: Path) -> None:
    data = coco_data([1, 2])
    change("annotations", 0, "bbox", value=[1, 2, 0, 9])(data)
    write_coco(coco, "train2017", data)
    assert found(check("coco", coco, "train2017", "val2017")) == {
        "no_area": ["instances_train2017.json: image 1: annotation 10: box [1, 2, 0, 9] of 'dog' has no area"]
    }


def test_a_mistyped_split_is_told_from_those_that_are_there(coco: Path) -> None:
    said = r"instances_val207\.json: no such file; there are the splits: train2017, val2017"
    assert re.fullmatch(said, found(check("coco", coco, "val207"))["missing_split"][0])
    with pytest.raises(DataError, match=said):
        read_coco_split(coco, "val207")
    with pytest.raises(DataError, match="no such file; there are the splits: none"):
        read_coco_split(coco / "nowhere", "val2017")


def test_joined_splits_that_share_pictures(coco: Path) -> None:
    write_coco(coco, "minitrain2017", coco_data([1, 2]))
    (coco / "minitrain2017").symlink_to("train2017")
    (scan,) = check("coco", coco, "train2017+minitrain2017")
    assert len(scan.pictures) == 2
    before = f"{coco}/annotations/instances_train2017.json"
    assert found([scan]) == {
        "listed_twice": [
            f"instances_minitrain2017.json: image id {i} is in {before} too: name one of the splits" for i in (1, 2)
        ]
    }
    with pytest.raises(DataError, match="image 1 is in two of the splits"):
        read_coco_split(coco, "train2017+minitrain2017")


def test_joined_splits_of_which_one_has_no_annotations(coco: Path) -> None:
    data = coco_data([1, 2])
    data["annotations"][0]["bbox"] = [1, 2, 0, 9]
    write_coco(coco, "train2017", data)
    (coco / "annotations/instances_val2017.json").unlink()
    write_coco(coco, "val2017", coco_data([3]), "image_info")
    scans = check("coco", coco, "train2017+val2017")
    assert list(found(scans)) == ["partly_annotated", "no_area"]  # the boxes that there are are checked
    assert found(scans)["partly_annotated"] == [
        "image_info_val2017.json: has no objects, as other parts of train2017+val2017 have: name them apart"
    ]
    scans = check("coco", coco, "train2017", "val2017")
    assert list(found(scans)) == ["no_area", "not_annotated"]
    assert describe_split(scans[1]) == {"pictures": 1}
    assert found(check("coco", coco, "val2017")) == {
        "untrainable": ["image_info_val2017.json: lists pictures without objects"]
    }


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 50) | st.floats() | st.text("a/.\\", max_size=3) | st.just(2**70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "bbox"]), inner, max_size=2),
    max_leaves=5,
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place in JSON data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, inner in items for p in [(*path, key), *places(inner, (*path, key))]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.none() | st.sampled_from(places(coco_data([1, 2]))),
    JSON_VALUES | st.just(...),
    st.lists(st.sampled_from(["train2017", "val2017", "test2017", "../x"]), min_size=1, max_size=3),
    st.sampled_from([[3], [3, 2]]),
)
def test_coco_errors_are_where_the_reader_fails(
    coco: Path, place: tuple | None, value: Any, parts: list[str], others: list[int]
) -> None:
    data = copy.deepcopy(coco_data([1, 2]))
    if place is not None:
        change(*place, value=value)(data)
    write_coco(coco, "train2017", data)
    write_coco(coco, "val2017", coco_data(others))
    write_coco(coco, "test2017", coco_data([4]), "image_info")
    for path in ("val2017/2.jpg", "test2017/4.jpg"):
        (coco / path).parent.mkdir(exist_ok=True)
        (coco / path).touch()  # only looked for
    split = "+".join(parts)
    scan = scan_coco(coco, split)
    check_boxes_of(scan, 2)
    format_findings(scan.findings)
    try:
        assert len(read_coco_split(coco, split, need_annotations=False))
        fails = False
    except (DataError, AssertionError):
        fails = True
    assert any(finding.kind.severity == "error" for finding in scan.findings) == fails


@pytest.mark.data
def test_the_real_subset(data_pack: Callable[[str], Path]) -> None:
    for split, objects, crowds in (("train2017", 2519, 25), ("val2017", 1692, 20)):
        scan = scan_coco(data_pack("coco_subset"), split)
        check_boxes_of(scan, 2)
        assert {f.kind.severity for f in scan.findings} == {"warning", "note"}
        assert (describe_split(scan)["objects"], describe_split(scan)["crowd"]) == (objects, crowds)
