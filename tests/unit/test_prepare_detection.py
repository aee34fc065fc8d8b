"""`prepare_data.py voc` and `coco` on archives of the official form: what they make, refuse, and after a kill."""

import fcntl
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from official_archives import killed_at, picture, tar, tree, zip_of
from voc_files import box, obj, xml

from detection.data.coco import read_coco_split
from detection.data.voc import read_voc
from detection.prepare import main

SIZE = "<size><width>40</width><height>40</height></size>"
CAT = xml(obj("cat"), obj("dog", box(5, 5, 9, 9), "<difficult>1</difficult>"), size=SIZE).encode()


def year(name: str, lists: Mapping[str, list[str]], number: int) -> dict[str, bytes]:
    """The files of an archive of VOC below VOCdevkit/, those of segmentation among them."""
    files = {f"{name}/ImageSets/Segmentation/trainval.txt": b"x\n", f"{name}/SegmentationClass/x.png": b"x"}
    for split, stems in lists.items():
        files[f"{name}/ImageSets/Main/{split}.txt"] = "".join(f"{stem}\n" for stem in stems).encode()
        files[f"{name}/ImageSets/Main/cat_{split}.txt"] = "".join(f"{stem}  1\n" for stem in stems).encode()
        for stem in stems:
            number += 1
            files[f"{name}/Annotations/{stem}.xml"] = CAT
            files[f"{name}/JPEGImages/{stem}.jpg"] = picture(number)
    return files


VOC = {
    "VOCtrainval_06-Nov-2007.tar": ("", year("VOC2007", {"trainval": ["000005", "000007"]}, 0)),
    "VOCtest_06-Nov-2007.tar": ("./", year("VOC2007", {"test": ["000001"]}, 10)),
    "VOCtrainval_11-May-2012.tar": ("TrainVal/", year("VOC2012", {"trainval": ["2008_000002"]}, 20)),
}
VOC_TREE = {
    f"VOCdevkit/{name}": content
    for _, files in VOC.values()
    for name, content in files.items()
    if "Segmentation" not in name
}


def coco_json(identities: list[int], folder: str, objects: bool = True) -> bytes:
    images = [{"id": i, "file_name": f"COCO_{folder}_{i:012d}.jpg", "height": 40, "width": 40} for i in identities]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 9, 9], "segmentation": []} for i in identities
    ]
    data = {"images": images, "categories": [{"id": 1, "name": "person"}]}
    return json.dumps(data | ({"annotations": annotations} if objects else {})).encode()


def coco_pictures(folder: str, identities: list[int]) -> dict[str, bytes]:
    return {f"{folder}/COCO_{folder}_{i:012d}.jpg": picture(i) for i in identities}


COCO = {
    "train2014.zip": coco_pictures("train2014", [1, 2, 3]),
    "val2014.zip": coco_pictures("val2014", [4, 5]),
    "test2015.zip": coco_pictures("test2015", [6]),
    "annotations_trainval2014.zip": {
        "annotations/instances_train2014.json": coco_json([1, 2, 3], "train2014"),
        "annotations/instances_val2014.json": coco_json([4, 5], "val2014"),
        "annotations/captions_val2014.json": b"{}",
    },
    "image_info_test2015.zip": {"annotations/image_info_test-dev2015.json": coco_json([6], "test2015", objects=False)},
}
LISTS = {"instances_minival2014.json": coco_json([4], "val2014")}
COCO_TREE = {name: data for files in COCO.values() for name, data in files.items() if "captions" not in name} | {
    f"annotations/{name}": data for name, data in LISTS.items()
}


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """A folder with all of them."""
    folder = tmp_path / "archives"
    folder.mkdir()
    for name, (prefix, files) in VOC.items():
        (folder / name).write_bytes(tar({f"{prefix}VOCdevkit/{file}": content for file, content in files.items()}))
    for name, content in COCO.items():
        (folder / name).write_bytes(zip_of(content, zipfile.ZIP_STORED if "test" in name else zipfile.ZIP_DEFLATED))
    for name, data in LISTS.items():
        (folder / name).write_bytes(data)
    return folder


def arguments(name: str, archives: Path, output: Path) -> list[str]:
    named = [str(archives / file) for file in (VOC if name == "voc" else COCO)]
    lists = ["--lists", *(str(archives / file) for file in LISTS)] if name == "coco" else []
    return [name, "--archives", *named, *lists, "--output", str(output)]


TREES = {"voc": VOC_TREE, "coco": COCO_TREE}


def test_makes_the_voc_layout(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "out"
    main(arguments("voc", archives, output))
    assert tree(output) == VOC_TREE
    assert len(read_voc(output / "VOCdevkit", "07++12")) == 4
    text = capsys.readouterr().out
    assert re.search(r"^VOC2007/trainval +2 +2 +4 +2$", text, re.MULTILINE)
    assert re.search(r"^VOC2007/test +1 +1 +2 +1$", text, re.MULTILINE)
    assert "VOC2007/trainval: the official set has 5,011 pictures and 15,662 objects." in text
    assert f"{len(VOC_TREE)} files (0.0 MB), of which {len(VOC_TREE)} were written now" in text
    assert "left out" not in text  # segmentation is known
    assert text.endswith(f"--name voc --root {output}/VOCdevkit --splits 07+12 VOC2007/test\n")
    main(arguments("voc", archives, output))
    assert "of which 0 were written now" in capsys.readouterr().out
    assert tree(output) == VOC_TREE


def test_makes_the_coco_layout(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "out"
    main(arguments("coco", archives, output))
    assert tree(output) == COCO_TREE
    assert len(read_coco_split(output, "train2014+minival2014")) == 4
    assert not read_coco_split(output, "test-dev2015", need_annotations=False).annotated
    text = capsys.readouterr().out
    assert re.search(r"^train2014 +3 +3 +3 +0$", text, re.MULTILINE)
    assert re.search(r"^minival2014 +1 +1 +1 +0$", text, re.MULTILINE)
    assert re.search(r"^test-dev2015 +1 +1 +- +-$", text, re.MULTILINE)
    assert "train2014: the official set has 82,783 pictures and 604,907 objects." in text
    assert text.endswith(f"--name coco --root {output} --splits train2014 val2014\n")
    main(arguments("coco", archives, output))
    assert "of which 0 were written now" in capsys.readouterr().out


def test_some_archives_alone(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["coco", "--archives", str(archives / "train2014.zip"), "--output", str(tmp_path / "a")])
    text = capsys.readouterr().out
    assert re.search(r"^train2014 +- +3 +- +-$", text, re.MULTILINE)
    assert "train2014: its annotations are not in these archives." in text
    annotations = str(archives / "annotations_trainval2014.zip")
    main(["coco", "--archives", annotations, "--output", str(tmp_path / "b")])
    assert f"train2014: 3 of its pictures are not in {tmp_path}/b/train2014: is an" in capsys.readouterr().out
    main(["voc", "--archives", str(archives / "VOCtest_06-Nov-2007.tar"), "--output", str(tmp_path / "c")])
    assert capsys.readouterr().out.endswith("--splits VOC2007/test\n")


@pytest.mark.parametrize("name", ["voc", "coco"])
@pytest.mark.parametrize("place", [0, 500, -1])
def test_damaged_files_of_the_same_size_are_written_anew(
    archives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    name: str,
    place: int,
) -> None:
    monkeypatch.setattr("backbones.data.unpacking._CHUNK", 128)  # files of several chunks
    output = tmp_path / "out"
    main(arguments(name, archives, output))
    for file in [file for file in TREES[name] if file.endswith("jpg")][:2]:
        content = bytearray((output / file).read_bytes())
        content[place] ^= 1
        (output / file).write_bytes(content)
    capsys.readouterr()
    main(arguments(name, archives, output))
    assert "of which 2 were written now" in capsys.readouterr().out
    assert tree(output) == TREES[name]


@pytest.mark.parametrize("name", ["voc", "coco"])
@pytest.mark.parametrize(("number", "early"), [(0, True), (3, False), (6, True)])
def test_a_killed_run_goes_on(archives: Path, tmp_path: Path, name: str, number: int, early: bool) -> None:
    output = tmp_path / "out"
    killed_at(number, early, main, arguments(name, archives, output))
    left = {file: data for file, data in tree(output).items() if not file.startswith(".")}
    assert len(left) == number + (not early)
    assert left.items() <= TREES[name].items()
    main(arguments(name, archives, output))
    assert tree(output) == TREES[name]


@pytest.mark.parametrize(("name", "locked"), [("voc", "VOCdevkit"), ("coco", ".")])
def test_two_at_once_are_refused(
    archives: Path, tmp_path: Path, refused: Callable[..., str], name: str, locked: str
) -> None:
    (tmp_path / "out" / locked).mkdir(parents=True)
    descriptor = os.open(tmp_path / "out" / locked, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert "another prepare_data.py is at work there" in refused(*arguments(name, archives, tmp_path / "out"))
    os.close(descriptor)


GOOD = {"VOCdevkit/VOC2007/Annotations/a.xml": CAT}
PICTURES = coco_pictures("train2014", [1])


def test_foreign_files_are_named(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = {**PICTURES, "__MACOSX/train2014/._x.jpg": b"x", "README": b"x", "train2014/a b.jpg": b"x"}
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    main(["coco", "--archives", str(tmp_path / "a.zip"), "--output", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert "left out: 3 files that are not of the official form, in __MACOSX/train2014 (1), README (1), train" in text
    assert tree(tmp_path / "out") == PICTURES
    (tmp_path / "a.tar").write_bytes(tar(GOOD | {"VOCdevkit/VOC2007/JPEGImages/._a.jpg": b"x", "VOCdevkit/a.m": b"x"}))
    main(["voc", "--archives", str(tmp_path / "a.tar"), "--output", str(tmp_path / "voc")])
    assert "in VOCdevkit/VOC2007/JPEGImages (1), VOCdevkit (1)" in capsys.readouterr().out
    assert tree(tmp_path / "voc") == GOOD


def test_bad_arguments_are_named(archives: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    output = ["--output", str(tmp_path / "out")]
    assert "nowhere: no such file" in refused("voc", "--archives", str(tmp_path / "nowhere"), *output)
    assert "nowhere: no such file" in refused("coco", "--archives", str(tmp_path / "nowhere"), *output)
    assert "not a file" in refused("coco", "--lists", str(tmp_path), *output)
    assert "archives and lists are missing" in refused("coco", *output)
    archive = str(archives / "VOCtest_06-Nov-2007.tar")
    assert "is named twice" in refused("voc", "--archives", archive, archive, *output)
    assert "holds nothing new" in refused(
        "voc", "--archives", archive, f"{archives}/../archives/{Path(archive).name}", *output
    )
    (archives / "other.json").write_text("{}")
    assert "is called instances_<split>.json" in refused("coco", "--lists", str(archives / "other.json"), *output)
    for content, said in (("{", "not a JSON file"), ("[]", "is not an annotation file of COCO's form")):
        (archives / "instances_x.json").write_text(content)
        message = refused("coco", "--lists", str(archives / "instances_x.json"), *output)
        assert f"{archives}/instances_x.json: {said}" in message
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    assert "can't be written" in refused("voc", "--archives", archive, "--output", str(tmp_path / "file"))
