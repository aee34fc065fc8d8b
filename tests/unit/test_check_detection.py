"""`check_data.py` on detection sets: what is planted is found, nothing else; it fails where the readers fail."""

import copy
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from official_archives import picture
from PIL import Image
from test_voc_reader import box, obj, xml

from backbones.data.findings import format_findings
from backbones.errors import DataError
from detection.check import main
from detection.check_drawing import choose, draw_picture
from detection.data.checking.coco import scan_coco
from detection.data.checking.objects import check_boxes_of
from detection.data.checking.scan import SplitScan
from detection.data.checking.splits import all_findings, check_detection_set
from detection.data.checking.table import describe_split
from detection.data.checking.voc import scan_voc
from detection.data.coco import read_coco_split
from detection.data.voc import read_voc

SIZE = "<size><width>40</width><height>40</height></size>"


def write_voc(root: Path, year: str, lists: dict[str, list[str]], number: int = 0) -> None:
    """A year of pictures of noise, 40x40, with a cat and a difficult dog each."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / year / folder).mkdir(parents=True, exist_ok=True)
    for name, stems in lists.items():
        (root / year / f"ImageSets/Main/{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            number += 1
            (root / year / f"JPEGImages/{stem}.jpg").write_bytes(picture(number))
            dog = obj("dog", box(11, 11, 30, 40), "<difficult>1</difficult>")
            (root / year / f"Annotations/{stem}.xml").write_text(xml(obj("cat"), dog, size=SIZE))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    write_voc(tmp_path, "VOC2007", {"trainval": ["a", "b"], "test": ["c"]})
    return tmp_path


def coco_data(identities: list[int]) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 40} for i in identities],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": 18, "bbox": [4, 4 + k, 20, 9], "area": 90, "iscrowd": k}
            for i in identities
            for k in (0, 1)
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }


def write_coco(root: Path, split: str, data: Any, form: str = "instances") -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/{form}_{split}.json").write_text(json.dumps(data))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for split, identities in (("train2017", [1, 2]), ("val2017", [3])):
        (tmp_path / split).mkdir()
        for i in identities:
            (tmp_path / split / f"{i}.jpg").write_bytes(picture(i))
        write_coco(tmp_path, split, coco_data(identities))
    return tmp_path


def check(name: Any, root: Path, *splits: str, rare: int = 0) -> list[SplitScan]:
    return check_detection_set(name, root, splits, min_side=32, min_box=2, rare=rare, workers=0)


def found(scans: list[SplitScan]) -> dict[str, list[str]]:
    """Kind -> what is said, each as "file: message"."""
    kinds: dict[str, list[str]] = {}
    for finding in all_findings(scans):
        kinds.setdefault(finding.kind.name, []).append(f"{Path(finding.file).name}: {finding.message}")
    return kinds


def test_a_clean_set_and_its_table(voc: Path, coco: Path, capsys: pytest.CaptureFixture) -> None:
    main(["--name", "voc", "--root", str(voc), "--rare", "0", "--output", str(voc / "report.json"), "--workers", "1"])
    text = capsys.readouterr().out
    # A cat of 9x6 pixels and a difficult dog of 20x30 a picture.
    assert re.search(r"^trainval +2 +4 +2 +2 +2 / 2 / 2 +4 +0 +0$", text, re.MULTILINE)
    assert re.search(r"^cat +2 +1$", text, re.MULTILINE)
    assert "nothing is wrong with them" in text
    report = json.loads((voc / "report.json").read_text())
    assert report["splits"]["test"]["classes"] == {"cat": 1, "dog": 1}
    assert report["findings"] == []
    main(["--name", "coco", "--root", str(coco), "--rare", "0", "--workers", "1"])
    text = capsys.readouterr().out
    assert re.search(r"^train2017 +2 +4 +1 +2 +2 / 2 / 2 +4 +0 +0$", text, re.MULTILINE)
    assert re.search(r"^person +0 +0$", text, re.MULTILINE)


def replace_xml(text: str) -> Callable[[Path], Any]:
    return lambda root: (root / "VOC2007/Annotations/a.xml").write_text(text)


def replace_picture(content: bytes) -> Callable[[Path], Any]:
    return lambda root: (root / "VOC2007/JPEGImages/a.jpg").write_bytes(content)


CAT = obj("cat")


@pytest.mark.parametrize(
    ("plant", "kind", "said"),
    [
        (replace_xml("<annotation>"), "unreadable", r"a\.xml: not an XML file that can be read"),
        (lambda root: (root / "VOC2007/Annotations/a.xml").unlink(), "missing_annotation", r"a\.xml: no such file"),
        (
            lambda root: (root / "VOC2007/JPEGImages/a.jpg").unlink(),
            "missing_picture",
            "its picture .* is missing",
        ),
        (replace_xml(xml(CAT, obj(""), size=SIZE)), "nameless", r"a\.xml: object 2 has no name"),
        (replace_xml(xml(CAT, obj(box=""), size=SIZE)), "bad_entry", r"a\.xml: object 2: <bndbox/xmin> .* is missing"),
        (replace_xml(xml(CAT, obj(box=box("x", 3, 9, 8)), size=SIZE)), "bad_entry", "object 2: .*is 'x', not a number"),
        (replace_xml(xml(CAT, obj(box=box(5, 3, 5, 8)), size=SIZE)), "no_area", r"box \(5, 3, 5, 8\) of 'cat' has no"),
        (replace_xml(xml(CAT, obj(box=box(5, 3, 45, 8)), size=SIZE)), "outside", "reaches outside its 40x40 picture"),
        (replace_xml(xml(CAT, obj(box=box(5, 3, 41, 8)), size=SIZE)), "clipped", "reaches 1 pixels outside"),
        (
            replace_xml(xml(CAT, obj(box=box(5, 3, 9, 3.5)), size=SIZE)),
            "tiny_box",
            r"3, 9, 3\.5\) of 'cat' is tiny",
        ),
        (replace_xml(xml(CAT, obj("dog"), CAT, size=SIZE)), "same_box", r"a\.xml: box .* of 'cat' is there before"),
        (replace_xml(xml(size=SIZE)), "no_objects", r"a\.xml: has no objects"),
        (
            replace_xml(xml(obj(difficult="<difficult>1</difficult>"), size=SIZE)),
            "only_ignored",
            r"a\.xml: all its 1 object\(s\) are difficult",
        ),
        (
            replace_xml(xml(CAT, size="<size><width>40</width><height>30</height></size>")),
            "other_size",
            r"a\.xml: says 40x30, and .*a\.jpg is 40x40",
        ),
        (replace_picture(picture(1)[:-200]), "damaged", r"a\.jpg: "),
        (replace_picture(picture(9, 30)), "tiny", r"a\.jpg: is of 30x30"),
        (replace_picture(picture(2)), "duplicate", r"b\.jpg: is the same as .*a\.jpg in trainval"),
        (replace_picture(picture(3)), "leak", r"c\.jpg: is in trainval too, and here in test"),
        (
            lambda root: (root / "VOC2007/ImageSets/Main/test.txt").write_text("c\na\n"),
            "leak",
            r"a\.jpg: is in trainval too, and here in test",
        ),
        (
            lambda root: (root / "VOC2007/ImageSets/Main/trainval.txt").write_text("a\nb\na\n"),
            "listed_twice",
            r"trainval\.txt: line 3: 'a' is listed before",
        ),
        (
            lambda root: (root / "VOC2007/ImageSets/Main/trainval.txt").write_text("a 1\na\nb\n"),
            "bad_entry",
            r"trainval\.txt: line 1: 'a 1' is not the name of a picture",
        ),
        (
            lambda root: (root / "VOC2007/ImageSets/Main/test.txt").unlink(),
            "missing_split",
            "no such split",
        ),
        (
            lambda root: (root / "VOC2007/Annotations/c.xml").write_text(xml(CAT, obj("ox"), obj("dog"), size=SIZE)),
            "unknown_class",
            r"c\.xml: class 'ox' has 1 object\(s\) in test and none in trainval",
        ),
    ],
)
def test_every_kind_is_found_in_voc(voc: Path, plant: Callable[[Path], Any], kind: str, said: str) -> None:
    plant(voc)
    kinds = found(check("voc", voc, "trainval", "test"))
    kinds.pop("untested_class", None)  # the dog of a.xml may be gone
    if kind == "tiny":  # of another size than annotated as well
        kinds.pop("other_size")
    assert list(kinds) == [kind]
    assert len(kinds[kind]) == 1
    assert re.search(said, kinds[kind][0])


def test_a_pipe_is_not_read(voc: Path) -> None:
    (voc / "VOC2007/JPEGImages/a.jpg").unlink()
    os.mkfifo(voc / "VOC2007/JPEGImages/a.jpg")
    (voc / "VOC2007/Annotations/b.xml").unlink()
    os.mkfifo(voc / "VOC2007/Annotations/b.xml")
    assert set(found(check("voc", voc, "trainval"))) == {"special_file", "missing_annotation"}


def test_all_is_found_at_once(voc: Path, capsys: pytest.CaptureFixture) -> None:
    replace_xml(xml(obj(""), obj(box=box(5, 3, 5, 8)), size=SIZE))(voc)
    (voc / "VOC2007/Annotations/b.xml").write_text("junk")
    (voc / "VOC2007/JPEGImages/c.jpg").write_bytes(b"GIF8")
    with pytest.raises(SystemExit) as left:
        main(["--name", "voc", "--root", str(voc), "--workers", "1"])
    assert left.value.code == 2
    out, error = capsys.readouterr()
    for kind in ("nameless", "no_area", "unreadable", "damaged"):
        assert re.search(rf"^error +{kind} +1  ", out, re.MULTILINE)
    assert "error(s) found, see above" in error.splitlines()[-1]


def change(*path: Any, value: Any = ...) -> Callable[[dict], None]:
    """Sets a value of the training annotations, or takes it away."""

    def apply(data: dict) -> None:
        place: Any = data
        for key in path[:-1]:
            place = place[key]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("plant", "kind", "said"),
    [
        (change("images", 0, "height", value="40"), "bad_entry", "image 1: has no height and width"),
        (change("images", 0, "file_name", value="../x.jpg"), "bad_entry", r"file_name '../x\.jpg' names no file"),
        (
            change("images", 0, "file_name", value="9.jpg"),
            "missing_picture",
            r"image 1: its picture .* is missing",
        ),
        (change("images", 0, "file_name", value="2.jpg"), "duplicate", "is the picture of two entries of train2017"),
        (change("images", 0, "width", value=39), "other_size", r"image 1: says 39x40, and .*1\.jpg is 40x40"),
        (
            change("annotations", 0, "category_id", value=7),
            "unknown_class",
            "category_id 7 is not listed",
        ),
        (change("annotations", 0, "category_id"), "nameless", "annotation 10 has no category_id"),
        (change("annotations", 0, "image_id", value=77), "bad_entry", "annotation 10: image_id 77 is not listed"),
        (change("annotations", 0, "bbox", value=[1, 2, 3]), "bad_entry", r"annotation 10: .*bbox \[1, 2, 3\]"),
        (
            change("annotations", 0, "bbox", value=[1, 2, 0, 9]),
            "no_area",
            r"10: box \[1, 2, 0, 9\] of 'dog'",
        ),
        (change("annotations", 0, "bbox", value=[39, 2, 9, 9]), "outside", "annotation 10: .* reaches outside"),
        (change("annotations", 0, "bbox", value=[40.2, 2, 0.3, 9]), "outside", "annotation 10: .* reaches outside"),
        (change("annotations", 0, "bbox", value=[30, 2, 10.25, 9]), "clipped", "reaches 0.25 pixels outside"),
        (change("annotations", 0, "bbox", value=[1e308, 0, 1e308, 9]), "outside", "annotation 10: "),
        (change("annotations", 1, "bbox", value=[4, 4, 20, 9]), "same_box", "annotation 11: .* is there before"),
        (change("annotations", 1, "id", value=10), "bad_entry", "annotation id 10 occurs twice"),
        (change("annotations", 0, "iscrowd", value=1), "only_ignored", r"image 1: all its 2 object\(s\) are crowd"),
        (change("images", 1, value=7), "bad_entry", "image number 2 has no id"),
        (change("images"), "bad_entry", "has no list 'images'"),
        (change("categories", 0, "id", value=19), "other_categories", "'dog' has id 18, and 19 in train2017"),
        (change("categories", 1, "name", value="cow"), "other_categories", "has no category 'cow', as train2017 has"),
    ],
)
def test_every_kind_is_found_in_coco(coco: Path, plant: Callable[[dict], None], kind: str, said: str) -> None:
    data = coco_data([1, 2])
    plant(data)
    write_coco(coco, "train2017", data)
    kinds = found(check("coco", coco, "train2017", "val2017"))
    assert any(re.search(said, message) for message in kinds[kind])


def test_one_finding_is_one_finding(coco: Path) -> None:
    data = coco_data([1, 2])
    change("annotations", 0, "bbox", value=[1, 2, 0, 9])(data)
    write_coco(coco, "train2017", data)
    assert found(check("coco", coco, "train2017", "val2017")) == {
        "no_area": ["instances_train2017.json: image 1: annotation 10: box [1, 2, 0, 9] of 'dog' has no area"]
    }


def test_splits_that_are_usual(voc: Path, coco: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
        return re.split(r"[\r\n]", capsys.readouterr().err.rstrip())[-1]

    write_voc(voc, "VOC2012", {"trainval": ["x"]}, 50)
    assert "write the split as VOC2007/trainval" in refused("--name", "voc", "--root", str(voc))
    main(["--name", "voc", "--root", str(voc), "--splits", "07+12", "VOC2007/test", "--workers", "0"])
    out = capsys.readouterr().out
    assert re.search(r"^07\+12 +3 +6 ", out, re.MULTILINE)
    (coco / "train2014").mkdir()
    write_coco(coco, "train2014", coco_data([1]))
    assert "splits of several years" in refused("--name", "coco", "--root", str(coco))
    assert "holds no instances_<split>.json" in refused("--name", "coco", "--root", str(voc / "VOC2007"))
    assert "is of the VOC layout: give --name voc" in refused("--root", str(voc / "VOC2007"))
    (coco / "VOC2007").rename(coco / "of VOC")
    (coco / "VOC2012").rename(coco / "of VOC too")
    assert "is of the COCO layout: give --name coco" in refused("--root", str(coco))
    assert "VOC2007 is of this layout: name that" in refused("--name", "voc", "--root", f"{voc}/VOC2007/JPEGImages")
    assert f"{coco} is of this layout: name that" in refused("--name", "coco", "--root", f"{coco}/train2017")
    assert f"give --name coco --root {coco}" in refused("--root", str(coco / "train2017"))
    assert "is of the COCO layout: give" in refused("--root", str(coco), "--splits", "train2017", "val2017")
    assert "belong together" in refused("--name", "voc", "--root", str(voc), "--draw", "3")
    assert "class folders have no boxes" in refused("--root", str(voc), "--draw", "3", "--draw_output", "x")
    assert "rare -1" in refused("--root", str(voc), "--rare", "-1")


def test_a_split_without_annotations(voc: Path) -> None:
    (voc / "VOC2007/Annotations/c.xml").unlink()
    scans = check("voc", voc, "trainval", "test")
    assert list(found(scans)) == ["not_annotated"]
    assert describe_split(scans[1]) == {"pictures": 1}


def test_joined_splits_that_share_pictures(voc: Path, coco: Path) -> None:
    """Neither reader joins them."""
    write_coco(coco, "minitrain2017", coco_data([1, 2]))
    (coco / "minitrain2017").symlink_to("train2017")
    (scan,) = check("coco", coco, "train2017+minitrain2017")
    assert len(scan.pictures) == 2
    assert found([scan]) == {
        "listed_twice": [
            f"instances_minitrain2017.json: image id {i} is in {coco}/annotations/instances_train2017.json too: "
            "name one of the splits"
            for i in (1, 2)
        ]
    }
    with pytest.raises(DataError, match="image 1 is in two of the splits"):
        read_coco_split(coco, "train2017+minitrain2017")
    (voc / "VOC2007/ImageSets/Main/val.txt").write_text("b\n")
    message = f"val.txt: line 1: 'b' is listed in {voc}/VOC2007/ImageSets/Main/trainval.txt too: name one of the lists"
    assert found(check("voc", voc, "trainval+val")) == {"listed_twice": [message]}
    with pytest.raises(DataError, match="'b' is listed twice"):
        read_voc(voc, "trainval+val")


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


ANNOTATION = xml(CAT, obj("dog", box(11, 11, 30, 40)), size=SIZE)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.none() | st.integers(0, len(ANNOTATION)),
    st.integers(0, 12),
    st.sampled_from(["", "-", "9", "<", "</object>", "<object/>", "nan", "<name>", "&e;", "\0", "é", "0"]),
    st.lists(st.sampled_from(["test", "val", "VOC2007/test", "nowhere"]), max_size=2),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=3),  # d has no annotation
)
def test_voc_errors_are_where_the_reader_fails(
    voc: Path, start: int | None, length: int, text: str, parts: list[str], val: list[str]
) -> None:
    replace_xml(ANNOTATION if start is None else ANNOTATION[:start] + text + ANNOTATION[start + length :])(voc)
    (voc / "VOC2007/ImageSets/Main/val.txt").write_text("\n".join(val))
    (voc / "VOC2007/JPEGImages/d.jpg").write_bytes(picture(77))
    split = "+".join(["trainval", *parts])
    scan = scan_voc(voc, split)
    check_boxes_of(scan, 2)
    try:
        read_voc(voc, split)
        fails = False
    except DataError:
        fails = True
    assert any(finding.kind.severity == "error" for finding in scan.findings) == fails


def test_pictures_with_findings_are_drawn_first(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (voc / "VOC2007/Annotations/b.xml").write_text(xml(CAT, obj(box=box(5, 3, 5, 8)), size=SIZE))
    scans = check("voc", voc, "trainval", "test")
    assert [(scan.name, place) for scan, place in choose(scans, 2)] == [("trainval", 1), ("trainval", 0)]
    assert len(choose(scans, 99)) == 3
    with pytest.raises(SystemExit):
        main(
            [
                "--name",
                "voc",
                "--root",
                str(voc),
                "--draw",
                "2",
                "--draw_output",
                str(tmp_path / "d/e"),
                "--workers",
                "0",
            ]
        )
    assert "1 sheet(s) of drawn pictures in" in capsys.readouterr().out
    with Image.open(tmp_path / "d/e/sheet_1.png") as sheet:
        assert sheet.width > 2 * 480
    assert os.listdir(tmp_path / "d/e") == ["sheet_1.png"]


def test_boxes_are_drawn_where_they_are(coco: Path) -> None:
    Image.new("RGB", (40, 40)).save(coco / "train2017/1.jpg")
    data = coco_data([1])
    data["annotations"][0]["bbox"] = [10, 20, 20, 10]  # of 40 pixels, which are drawn as 480
    data["annotations"][1]["bbox"] = [-1e300, 0, 1e308, 1e308]
    write_coco(coco, "train2017", data)
    drawn = np.array(draw_picture(scan_coco(coco, "train2017"), 0)).astype(int)[-480:]
    on_edge = drawn[300, 121]  # of the dog's box
    assert np.abs(on_edge - drawn[359, 240]).sum() < 10
    assert on_edge.sum() > 200
    assert drawn[300, 240].sum() < 10
    data["annotations"][0]["iscrowd"] = 1
    write_coco(coco, "train2017", data)
    crowd = np.array(draw_picture(scan_coco(coco, "train2017"), 0)).astype(int)[-480:]
    edge = crowd[245:355, 120]
    grey = (edge == 128).all(1)
    assert 0.3 < grey.mean() < 0.8  # dashes


@pytest.mark.data
def test_the_real_sets(data_pack: Callable[[str], Path]) -> None:
    scan = scan_voc(data_pack("bccd") / "VOCdevkit", "trainval+test")
    check_boxes_of(scan, 2)
    assert [(f.kind.name, Path(f.file).name) for f in scan.findings] == [
        ("no_area", "BloodImage_00338.xml"),
        ("no_area", "BloodImage_00343.xml"),
    ]
    for split, objects, crowds in (("train2017", 2519, 25), ("val2017", 1692, 20)):
        scan = scan_coco(data_pack("coco_subset"), split)
        check_boxes_of(scan, 2)
        assert {f.kind.severity for f in scan.findings} == {"warning", "note"}
        assert (describe_split(scan)["objects"], describe_split(scan)["crowd"]) == (objects, crowds)
