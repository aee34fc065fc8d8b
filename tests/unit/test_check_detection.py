"""`check_data.py` on detection sets: its table and drawings, which splits it takes, what it says of a wrong root."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checked_sets import CAT, SIZE, check, coco_data, make_coco, make_voc, write_coco, write_voc
from PIL import Image
from voc_files import box, obj, xml

from detection.check import main
from detection.check_drawing import choose, draw_picture, draw_sheets
from detection.data.checking.coco import scan_coco
from detection.data.checking.table import format_splits

Refused = Callable[..., str]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    (tmp_path / "devkit").mkdir()
    return make_voc(tmp_path / "devkit")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    (tmp_path / "coco").mkdir()
    return make_coco(tmp_path / "coco")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Refused:
    """Runs the command, which must leave with exit code 2; returns its error message."""

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
        return re.split(r"[\r\n]", capsys.readouterr().err.rstrip())[-1]

    return refused


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


def test_splits_that_are_usual(voc: Path, coco: Path, refused: Refused, capsys: pytest.CaptureFixture) -> None:
    write_voc(voc, "VOC2012", {"trainval": ["x"]}, 50)
    assert "write the split as VOC2007/trainval" in refused("--name", "voc", "--root", str(voc))
    main(["--name", "voc", "--root", str(voc), "--splits", "07+12", "VOC2007/test", "--workers", "0"])
    out = capsys.readouterr().out
    assert re.search(r"^07\+12 +3 +6 ", out, re.MULTILINE)
    (coco / "train2014").mkdir()
    write_coco(coco, "train2014", coco_data([1]))
    assert "splits of several years" in refused("--name", "coco", "--root", str(coco))


def test_a_root_that_is_one_level_off(voc: Path, coco: Path, refused: Refused) -> None:
    year = voc / "VOC2007"
    assert f"{voc} is of this layout: name that" in refused("--name", "voc", "--root", str(voc.parent))
    assert f"{year} is of this layout: name that" in refused("--name", "voc", "--root", f"{year}/JPEGImages")
    assert f"{coco} is of this layout: name that" in refused("--name", "coco", "--root", str(voc.parent))
    assert f"{coco} is of this layout: name that" in refused("--name", "coco", "--root", f"{coco}/train2017")
    assert "holds no instances_<split>.json; name the splits" in refused("--name", "coco", "--root", str(year))


def test_a_layout_that_was_not_named(voc: Path, coco: Path, refused: Refused) -> None:
    assert refused("--root", str(voc)) == f"error: {voc}: is of the VOC layout: give --name voc"
    assert refused("--root", str(voc), "--splits", "trainval", "test").endswith("is of the VOC layout: give --name voc")
    assert refused("--root", str(coco)) == f"error: {coco}: is of the COCO layout: give --name coco"
    assert refused("--root", str(coco), "--splits", "train2017", "val2017").endswith("give --name coco")
    assert refused("--root", str(voc.parent)).endswith(f"is of the VOC layout: give --name voc --root {voc}")
    (coco.parent / "imagenet/train/n01440764").mkdir(parents=True)  # may be what was meant
    assert refused("--root", str(voc.parent)).endswith("1 error(s) found, see above")


def test_splits_that_can_t_be_read_are_not_counted(coco: Path) -> None:
    write_coco(coco, "train2017", coco_data([]))
    scans = check("coco", coco, "train2017", "val2017", "val207", rare=10)
    assert "rare_class" not in {finding.kind.name for scan in scans for finding in scan.findings}
    table = format_splits(scans)
    assert re.search(r"^class +val2017$", table, re.MULTILINE)
    assert re.search(r"^dog +2$", table, re.MULTILINE)
    assert re.search(r"^val207 +0", table, re.MULTILINE)
    assert "class" not in format_splits(scans[:1]).split("pixels)")[1]


@pytest.mark.parametrize("folder", ["train2017", "annotations"])
def test_folders_without_permission_are_named(
    coco: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    listdir = os.listdir

    def listdir_or_fail(path: str | Path) -> list[str]:
        if Path(path) == coco / folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listdir_or_fail)  # tests may run as root, who may read all
    message = refused("--name", "coco", "--root", str(coco), "--workers", "0")
    assert message == f"error: {coco / folder}: no permission to read or write it"


def test_bad_arguments_are_named(voc: Path, refused: Refused) -> None:
    assert "belong together" in refused("--name", "voc", "--root", str(voc), "--draw", "3")
    assert "class folders have no boxes" in refused("--root", str(voc), "--draw", "3", "--draw_output", "x")
    assert "rare -1" in refused("--root", str(voc), "--rare", "-1")


def test_pictures_with_findings_are_drawn_first(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (voc / "VOC2007/Annotations/b.xml").write_text(xml(CAT, obj(box=box(5, 3, 5, 8)), size=SIZE))
    scans = check("voc", voc, "trainval", "test")
    assert [(scan.name, place) for scan, place in choose(scans, 2)] == [("trainval", 1), ("trainval", 0)]
    assert len(choose(scans, 99)) == 3
    (tmp_path / "d/e").mkdir(parents=True)
    for old in ("sheet_1.png", "sheet_12.png", "sheet_mine.png"):
        (tmp_path / "d/e" / old).touch()
    drawn = ["--draw", "2", "--draw_output", str(tmp_path / "d/e"), "--workers", "0"]
    with pytest.raises(SystemExit):
        main(["--name", "voc", "--root", str(voc), *drawn])
    assert "2 picture(s) drawn on 1 sheet(s) in" in capsys.readouterr().out
    with Image.open(tmp_path / "d/e/sheet_1.png") as sheet:
        assert sheet.width > 2 * 480
    assert sorted(os.listdir(tmp_path / "d/e")) == ["sheet_1.png", "sheet_mine.png"]


def test_a_picture_that_can_t_be_read_is_an_empty_cell(voc: Path, tmp_path: Path) -> None:
    (voc / "VOC2007/JPEGImages/b.jpg").write_bytes(b"junk")
    said = draw_sheets(check("voc", voc, "trainval"), 1, tmp_path)
    assert said == f"1 picture(s) drawn on 1 sheet(s) in {tmp_path}, 1 of them as empty cells (can't be read)"
    with Image.open(tmp_path / "sheet_1.png") as sheet:
        assert sheet.getpixel((240, 140)) == (211, 211, 211)


@pytest.mark.parametrize(
    ("corners", "on_outline"),
    [((11, 11, 11, 30), (117, 240)), ((30, 11, 11, 30), (129, 240)), ((50, 11, 60, 30), (477, 240))],
)
def test_wrong_boxes_have_a_red_outline(voc: Path, corners: tuple, on_outline: tuple[int, int]) -> None:
    Image.new("RGB", (40, 40)).save(voc / "VOC2007/JPEGImages/a.jpg")
    (voc / "VOC2007/Annotations/a.xml").write_text(xml(CAT, obj("dog", box(*corners)), size=SIZE))
    (scan,) = check("voc", voc, "trainval")
    assert scan.flagged_objects == {1}
    picture = draw_picture(scan, 0)
    assert picture.getpixel(on_outline) == (255, 0, 0)
    scan.flagged_objects.clear()
    assert not (np.array(draw_picture(scan, 0)) == (255, 0, 0)).all(2).any()


def test_boxes_are_drawn_where_they_are(coco: Path) -> None:
    Image.new("RGB", (40, 40)).save(coco / "train2017/1.jpg")
    data = coco_data([1])
    data["annotations"][0]["bbox"] = [10, 20, 20, 10]  # of 40 pixels, which are drawn as 480
    data["annotations"][1]["bbox"] = [-1e300, 0, 1e308, 1e308]
    write_coco(coco, "train2017", data)
    drawn = np.array(draw_picture(scan_coco(coco, "train2017"), 0)).astype(int)
    on_edge = drawn[300, 121]  # of the dog's box
    assert np.abs(on_edge - drawn[359, 240]).sum() < 10
    assert on_edge.sum() > 200
    assert drawn[300, 240].sum() < 10
    data["annotations"][0]["iscrowd"] = 1
    write_coco(coco, "train2017", data)
    crowd = np.array(draw_picture(scan_coco(coco, "train2017"), 0)).astype(int)
    outline = (crowd[265:355, 120] == on_edge).all(1)
    assert 0.3 < outline.mean() < 0.8  # dashes
