"""`check_data.py` on the VOC layout: what is planted is found, nothing else; it fails where the reader fails."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checked_sets import CAT, SIZE, check, found, make_voc, replace_picture, replace_xml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from official_archives import picture
from voc_files import box, obj, xml

from backbones.errors import DataError
from detection.check import main
from detection.data.checking.objects import check_boxes_of
from detection.data.checking.table import describe_split
from detection.data.checking.voc import scan_voc
from detection.data.voc import read_voc


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return make_voc(tmp_path)


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


def test_names_that_differ_in_case_alone(voc: Path) -> None:
    replace_xml(xml(obj("cat"), obj("dog", box(5, 5, 9, 9)), obj("DOG", box(1, 2, 9, 9)), size=SIZE))(voc)
    assert found(check("voc", voc, "trainval")) == {
        "alike_classes": ["a.xml: class 'DOG' (1 object(s)) and class 'dog' (2) differ in upper and lower case alone"]
    }


def test_a_pipe_is_not_read(voc: Path) -> None:
    (voc / "VOC2007/JPEGImages/a.jpg").unlink()
    os.mkfifo(voc / "VOC2007/JPEGImages/a.jpg")
    (voc / "VOC2007/Annotations/b.xml").unlink()
    os.mkfifo(voc / "VOC2007/Annotations/b.xml")
    assert set(found(check("voc", voc, "trainval"))) == {"special_file", "missing_annotation"}
    with pytest.raises(DataError, match=r"b\.xml: is no file"):
        read_voc(voc, "trainval", need_pictures=False)
    (voc / "VOC2007/ImageSets/Main/test.txt").unlink()
    os.mkfifo(voc / "VOC2007/ImageSets/Main/test.txt")
    assert found(check("voc", voc, "test")) == {"missing_split": ["test.txt: is no file: put a list of pictures there"]}
    with pytest.raises(DataError, match=r"test\.txt: is no file"):
        read_voc(voc, "test")


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


def test_a_split_without_annotations(voc: Path) -> None:
    (voc / "VOC2007/Annotations/c.xml").unlink()
    scans = check("voc", voc, "trainval", "test")
    assert list(found(scans)) == ["not_annotated"]
    assert describe_split(scans[1]) == {"pictures": 1}


def test_joined_splits_that_share_pictures(voc: Path) -> None:
    (voc / "VOC2007/ImageSets/Main/val.txt").write_text("b\n")
    message = f"val.txt: line 1: 'b' is listed in {voc}/VOC2007/ImageSets/Main/trainval.txt too: name one of the lists"
    assert found(check("voc", voc, "trainval+val")) == {"listed_twice": [message]}
    with pytest.raises(DataError, match="'b' is listed twice"):
        read_voc(voc, "trainval+val")


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


@pytest.mark.data
def test_blood_cells(data_pack: Callable[[str], Path]) -> None:
    scan = scan_voc(data_pack("bccd") / "VOCdevkit", "trainval+test")
    check_boxes_of(scan, 2)
    assert [(f.kind.name, Path(f.file).name) for f in scan.findings] == [
        ("no_area", "BloodImage_00338.xml"),
        ("no_area", "BloodImage_00343.xml"),
    ]
