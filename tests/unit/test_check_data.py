"""`check_data.py`: every kind of finding is planted and found, and nothing else; a clean set has none."""

import io
import json
import multiprocessing
import os
import re
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_archives import picture
from PIL import Image

from backbones.data.checking.class_folders import check_class_folders, find_duplicates
from backbones.data.checking.layout import ClassFolder
from backbones.data.checking.pictures import inspect_picture, inspect_pictures
from backbones.data.findings import format_findings
from backbones.data.pictures import read_image
from backbones.errors import DataError
from detection.check import main

APE, BEE = "n01440764", "n02102040"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """{train,val}/<two synsets>/, three and two pictures each, in which nothing is wrong."""
    root = tmp_path / "set"
    number = 0
    for split, count in (("train", 3), ("val", 2)):
        for synset in (APE, BEE):
            (root / split / synset).mkdir(parents=True)
            for k in range(count):
                name = f"{synset}_{k}.JPEG" if split == "train" else f"ILSVRC2012_val_{number:08d}.JPEG"
                (root / split / synset / name).write_bytes(picture(number))
                number += 1
    return root


def check(root: Path, *splits: str, min_side: int = 32) -> dict[str, list[str]]:
    """What is found: kind -> files below `root`."""
    report = check_class_folders(root, splits or ("train", "val"), min_side=min_side, workers=0)
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.kind.name, []).append(os.path.relpath(finding.file, root))
    return found


def test_a_clean_set_has_no_findings(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "statistics_224.safetensors").write_bytes(b"beside the splits anything may lie")
    main(["--root", str(root), "--output", str(root / "report.json"), "--workers", "2"])
    text = capsys.readouterr().out
    assert "train has 6 pictures of 2 classes, val has 4 pictures of 2 classes" in text
    assert "nothing is wrong" in text
    report = json.loads((root / "report.json").read_text())
    assert report["splits"] == {"train": {"classes": 2, "pictures": 6}, "val": {"classes": 2, "pictures": 4}}
    assert report["findings"] == []


def write(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def save(image: Image.Image, kind: str) -> Callable[[Path], None]:
    return lambda path: image.save(path, kind)


def png(width: int, height: int) -> bytes:
    """A small file that declares a picture of this size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


NOISE = Image.open(io.BytesIO(picture(99)))


@pytest.mark.parametrize(
    ("plant", "name", "kind"),
    [
        (write(b""), "x.JPEG", "empty_file"),
        (write(b"<html>not found"), "x.JPEG", "no_picture"),
        (write(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "x.jpg", "no_picture"),
        (write(picture(99)[:-1]), "x.JPEG", "damaged"),
        (write(picture(99)[:3]), "x.JPEG", "damaged"),
        (write(picture(99, kind="PNG")[:-300]), "x.png", "damaged"),
        (write(png(60000, 60000)), "x.png", "too_large"),
        (write(png(12000, 12000)), "x.png", "too_large"),
        (write(picture(99, kind="PNG")), "x.JPEG", "wrong_format"),
        (write(picture(99, kind="BMP")), "x.jpg", "wrong_format"),
        (save(NOISE.convert("CMYK"), "JPEG"), "x.JPEG", "cmyk"),
        (save(NOISE.convert("L"), "JPEG"), "x.JPEG", "greyscale"),
        (save(NOISE.convert("1"), "PNG"), "x.png", "greyscale"),
        (save(NOISE.convert("P"), "PNG"), "x.png", "palette"),
        (save(NOISE.convert("RGBA"), "PNG"), "x.png", "transparent"),
        (save(Image.fromarray(np.full((40, 40), 40000, np.uint16)), "PNG"), "x.png", "deep"),
        (save(Image.fromarray(np.full((40, 40), 0.5, np.float32)), "TIFF"), "x.tif", "floating"),
        (save(NOISE.resize((31, 40)), "JPEG"), "x.JPEG", "tiny"),
        (save(NOISE.resize((40, 401)), "JPEG"), "x.JPEG", "elongated"),
        (write(picture(99)), f"{BEE}_7.JPEG", "mislabelled"),
        (write(b"x"), ".DS_Store", "hidden_file"),
        (write(picture(99)), "._x.JPEG", "hidden_picture"),
        (write(b"x"), "list.txt", "other_file"),
        (Path.mkdir, "inner", "nested_folder"),
        (Path.mkdir, "inner.jpg", "nested_folder"),
        (os.mkfifo, "x.JPEG", "special_file"),
        (lambda path: path.symlink_to("nowhere.JPEG"), "x.JPEG", "broken_link"),
        (lambda path: path.symlink_to(path.name), "x.JPEG", "broken_link"),
        (lambda path: path.symlink_to("/dev/zero"), "x.JPEG", "special_file"),
    ],
)
def test_what_is_planted_is_found_and_nothing_else(root: Path, plant: Callable, name: str, kind: str) -> None:
    plant(root / "train" / APE / name)
    assert check(root) == {kind: [f"train/{APE}/{name}"]}


def test_a_socket_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "val" / APE)  # names of sockets must be short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("s.jpg")
    assert check(root) == {"special_file": [f"val/{APE}/s.jpg"]}


def test_what_may_be_there_is_not_found(root: Path) -> None:
    (root / "train" / APE / "x.JPEG").symlink_to("y.jpg")
    save(NOISE, "WEBP")(root / "elsewhere")
    (root / "train" / APE / "y.jpg").write_bytes(picture(99))
    (root / "train" / APE / "x.JPEG").unlink()
    (root / "train" / APE / "x.WebP").symlink_to(root / "elsewhere")  # folders of links are common
    (root / "train" / APE / "n12_1.JPEG").write_bytes(picture(98))
    save(NOISE.resize((400, 40)), "JPEG")(root / "train" / APE / "long.JPEG")
    save(NOISE.resize((32, 32)), "JPEG")(root / "train" / APE / "small.JPEG")
    assert check(root) == {}
    assert check(root, min_side=33) == {"tiny": [f"train/{APE}/small.JPEG"]}
    for split in ("train", "val"):
        (root / split / BEE).rename(root / split / "bee")  # the names of other sets say nothing of classes
    assert check(root) == {}


def test_layout_of_a_split(root: Path) -> None:
    (root / "train" / "x.JPEG").write_bytes(picture(99))
    (root / "train" / ".hidden").write_bytes(b"x")
    (root / "train" / "lost").symlink_to("nowhere")
    os.mkfifo(root / "val" / "pipe")
    (root / "train" / ".cache").mkdir()
    (root / "val" / "cat").mkdir()
    shutil.rmtree(root / "val" / BEE)
    (root / "val" / "cow").mkdir()
    (root / "val" / "cow" / "a.png").write_bytes(picture(97, kind="PNG"))
    assert check(root) == {
        "stray_file": ["train/x.JPEG"],
        "hidden_file": ["train/.hidden"],
        "broken_link": ["train/lost"],
        "special_file": ["val/pipe"],
        "hidden_folder": ["train/.cache"],
        "empty_class": ["train/.cache", "val/cat"],
        "untrained_class": ["val/cow"],
        "untested_class": [f"train/{BEE}"],
    }


def test_a_folder_that_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith(f"val/{APE}"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = check(root)
    assert found["no_access"] == [f"val/{APE}"]
    assert "empty_class" not in found


def message(root: Path, *splits: str) -> str:
    (finding,) = check_class_folders(root, splits or ("train", "val"), min_side=32, workers=0).findings
    return f"{finding.kind.name}: {finding.message}"


def test_a_missing_split(root: Path) -> None:
    assert message(root, "train", "test") == "missing_split: no such folder: name those that there are with --splits"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"],
            "without their classes.*prepare_data.py imag",
        ),
        (["n01440764.tar", "n02102040.tar"], "holds archives.*prepare_data.py imagenet"),
        (["a.png"], "side by side: put each into .*val/<class>/"),
        ([], "holds no class folders"),
    ],
)
def test_a_flat_split(root: Path, names: list[str], told: str) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    for name in names:
        (root / "val" / name).write_bytes(picture(5))
    assert re.match(f"flat_split: .*{told}", message(root))


def test_a_wrong_root(root: Path, tmp_path: Path) -> None:
    assert message(tmp_path) == f"wrong_root: the splits lie deeper: give --root {root}"
    assert message(root / "train") == f"wrong_root: is a split itself: give --root {root} --splits train"
    assert message(root / "train" / APE) == f"wrong_root: is a class folder: give --root {root}"
    assert "name its splits with --splits train val" in message(root, "training", "test")
    deep = tmp_path / "kaggle/ILSVRC/Data/CLS-LOC"
    deep.parent.mkdir(parents=True)
    root.rename(deep)
    assert message(tmp_path / "kaggle") == f"wrong_root: the splits lie deeper: give --root {deep}"
    for name, told in (("ILSVRC2012_img_val.tar", "holds archives"), ("x.JPEG", "side by side"), ("x", "holds none")):
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_bytes(b"x")
        assert told in message(folder)


def test_copies_are_told_apart_by_where_they_lie(root: Path) -> None:
    original = root / "train" / APE / f"{APE}_1.JPEG"
    for name in (f"train/{APE}/z.JPEG", f"train/{BEE}/z.JPEG", f"val/{APE}/z.JPEG", f"val/{BEE}/z.JPEG"):
        shutil.copy(original, root / name)
    report = check_class_folders(root, ["train", "val"], min_side=32, workers=0)
    here = f"is the same as {original}"
    assert [(f.kind.name, os.path.relpath(f.file, root), f.message) for f in report.findings] == [
        ("duplicate", f"train/{APE}/z.JPEG", f"{here}: remove one of them"),
        ("two_classes", f"train/{BEE}/z.JPEG", f"{here} of class {APE}: one of the two is in the wrong class"),
        ("leak", f"val/{APE}/z.JPEG", f"{here}: a test of what was trained on; remove one of them"),
        (
            "two_classes",
            f"val/{BEE}/z.JPEG",
            f"is the same as {root}/val/{APE}/z.JPEG of class {APE}: one of the two is in the wrong class",
        ),
        (
            "leak",
            f"val/{BEE}/z.JPEG",
            f"{here}, where its class is {APE}: a test of what was trained on; remove one of them",
        ),
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 3)), max_size=12), st.data())
def test_copies_against_a_plain_search(drawn: list[tuple[str, str, int]], data: st.DataObject) -> None:
    pictures = sorted(drawn)  # (split, class, content)
    read = np.array(data.draw(st.lists(st.booleans(), min_size=len(pictures), max_size=len(pictures))), dtype=bool)
    folders = [
        ClassFolder(s, c, f"{s}/{c}", [str(k) for k, p in enumerate(pictures) if p[:2] == (s, c)])
        for s in "ab"
        for c in "xy"
    ]
    digests = np.array([[0] * 15 + [content] for *_, content in pictures], dtype=np.uint8).reshape(-1, 16)
    expected = set()
    for k, (split, name, content) in enumerate(pictures):
        before = [p for j, p in enumerate(pictures[:k]) if read[j] and read[k] and p[2] == content]
        if (split, name, content) in before:
            expected.add(("duplicate", f"{split}/{name}/{k}"))
        elif any(p[0] == split for p in before):
            expected.add(("two_classes", f"{split}/{name}/{k}"))
        if any(p[0] != split for p in before):
            expected.add(("leak", f"{split}/{name}/{k}"))
    found = [(f.kind.name, f.file) for f in find_duplicates(folders, digests, read)]
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.filterwarnings("ignore")  # of the decoders
@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([picture(1, 24), picture(1, 24, "PNG"), picture(1, 24, "BMP"), picture(1, 24, "TIFF")]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
def test_errors_are_where_the_reader_fails(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, damage: list[tuple[int, int]], share: float
) -> None:
    damaged = bytearray(content)
    for place, value in damage:
        damaged[place % len(damaged)] = value
    path = tmp_path_factory.mktemp("damaged") / "x.jpg"
    path.write_bytes(damaged[: round(len(damaged) * share) if share < 0.9 else None])
    try:
        read_image(path)
        fails = False
    except DataError:
        fails = True
    found = inspect_picture(str(path), 1).findings
    assert any(finding.kind.severity == "error" for finding in found) == fails


def dies_at(path: str, min_side: int) -> object:
    """As a decoder that crashes at some files."""
    if "bad" in path:
        os._exit(11)
    return inspect_picture(path, min_side)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the workers would not be patched")
def test_a_picture_that_kills_its_reader_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{k}{'bad' if k in (3, 40, 41) else ''}.png" for k in range(50)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(picture(number, kind="PNG"))
    monkeypatch.setattr("backbones.data.checking.pictures.inspect_picture", dies_at)
    found = list(inspect_pictures([str(tmp_path / name) for name in names], min_side=32, workers=2))
    assert len(found) == 50
    assert {names[k]: [f.kind.name for f in i.findings] for k, i in enumerate(found) if i.findings} == {
        name: ["kills_reader"] for name in names if "bad" in name
    }


def test_workers_change_nothing(root: Path) -> None:
    (root / "train" / APE / "x.JPEG").write_bytes(picture(99)[:-1])
    shutil.copy(root / "train" / APE / f"{APE}_0.JPEG", root / "val" / APE / "y.JPEG")
    alone, together = (check_class_folders(root, ["train", "val"], min_side=32, workers=n) for n in (0, 2))
    assert alone == together
    assert len(alone.findings) == 2


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[str, str]:
    """Runs the command, which must leave with exit code 2; returns its output and the last line of its errors."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    out, error = capsys.readouterr()
    return out, re.split(r"[\r\n]", error.rstrip("\n"))[-1]


def test_the_command_prints_a_few_and_writes_all(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(8):
        (root / "train" / APE / f"{number}.JPEG").write_bytes(picture(50 + number)[:-1])
    (root / "val" / APE / "a.txt").write_bytes(b"x")
    out, error = run(capsys, "--root", str(root), "--output", str(tmp_path / "deep/report.json"), "--workers", "1")
    assert re.search(r"^error +damaged +8  pictures that are cut off or corrupt$", out, re.MULTILINE)
    assert re.search(r"^note +other_file +1  ", out, re.MULTILINE)
    assert "4.JPEG: can't be decoded" in out
    assert "5.JPEG" not in out
    assert "  and 3 more\n" in out
    assert "8 error(s), 0 warning(s), 1 note(s)" in out
    assert error == f"error: {root}: 8 error(s) found, see above"
    report = json.loads((tmp_path / "deep/report.json").read_text())
    assert report["kinds"] == {"damaged": 8, "other_file": 1}
    assert report["severities"] == {"error": 8, "warning": 0, "note": 1}
    assert {Path(finding["file"]).name for finding in report["findings"]} == {*(f"{n}.JPEG" for n in range(8)), "a.txt"}
    assert set(report["findings"][0]) == {"severity", "kind", "file", "message"}


def test_warnings_alone_are_no_failure(root: Path, capsys: pytest.CaptureFixture) -> None:
    save(NOISE.convert("CMYK"), "JPEG")(root / "train" / APE / "x.JPEG")
    main(["--root", str(root), "--workers", "0"])
    assert "0 error(s), 1 warning(s), 0 note(s)" in capsys.readouterr().out


def test_bad_arguments_are_named(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert "nowhere: no such folder" in run(capsys, "--root", str(root / "nowhere"))[1]
    assert "min_side -1" in run(capsys, "--root", str(root), "--min_side", "-1")[1]
    assert "splits train train" in run(capsys, "--root", str(root), "--splits", "train", "train")[1]
    assert "splits" in run(capsys, "--root", str(root), "--splits")[1]
    assert "is a folder; name a file" in run(capsys, "--root", str(root), "--output", str(root))[1]


def test_names_that_a_terminal_or_an_encoding_would_not_bear(root: Path, capsys: pytest.CaptureFixture) -> None:
    folder = os.fsencode(root / "train" / APE)
    for name in (b"a\x1b[31m\n.JPEG", b"b\xff.JPEG"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"x")
    out, _ = run(capsys, "--root", str(root), "--workers", "1", "--output", str(root / "report.json"))
    assert r"a\x1b[31m\n.JPEG: " in out
    assert r"b\udcff.JPEG: " in out
    files = [finding["file"] for finding in json.loads((root / "report.json").read_text())["findings"]]
    assert sorted(map(os.fsencode, files)) == [folder + b"/a\x1b[31m\n.JPEG", folder + b"/b\xff.JPEG"]
    assert format_findings([]) == ""


@pytest.mark.data
def test_imagenette_is_clean_until_something_is_planted(data_pack: Callable[[str], Path], tmp_path: Path) -> None:
    source = data_pack("imagenette")
    for folder in (*(source / "train").iterdir(), *(source / "val").iterdir()):
        target = tmp_path / folder.parent.name / folder.name
        target.mkdir(parents=True)
        for path in sorted(folder.iterdir())[:6]:
            shutil.copy(path, target)
    assert check(tmp_path) == {}
    some = sorted((tmp_path / "train" / APE).iterdir())
    some[0].write_bytes(some[0].read_bytes()[:-100])
    shutil.copy(some[1], tmp_path / "val" / APE / "copy.jpg")
    shutil.move(some[2], tmp_path / "train" / BEE / f"{APE}_1.jpg")
    assert check(tmp_path) == {
        "mislabelled": [f"train/{BEE}/{APE}_1.jpg"],
        "damaged": [f"train/{APE}/{some[0].name}"],
        "leak": [f"val/{APE}/copy.jpg"],
    }
