"""Bad input of the second kind: pictures, annotations and data sets."""

import io
import os
import pickle
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs import PRETRAIN, Kind, Place

BILLION_LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">{}]><annotation>&j;</annotation>'.format(
    "".join(f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in zip("abcdefghi", "bcdefghij", strict=True))
)
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'


class Trap:
    """A pickle of this makes the folder `sprung` where it is loaded without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def png(width: int, height: int) -> bytes:
    """A PNG that says that it is so large, and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def detect(name: str, make: Callable[[Place], Any], message: str) -> Kind:
    """A picture that `detect` refuses."""
    return Kind(
        name,
        "detect",
        lambda p: ["--model", p.shared / "detector", "--images", make(p), "--output", p.here / "out"],
        message,
    )


def voc(name: str, change: Callable[[Path], Any], message: str) -> Kind:
    """A VOC year that the test of a detector refuses, whose picture test_0 and list `test` are there."""

    def arguments(place: Place) -> list[Any]:
        shutil.copytree(place.shared / "voc", place.here / "voc")
        change(place.here / "voc" / "VOC2007")
        model = ["--model", place.shared / "detector", "--output", place.here / "out", "--workers", "0"]
        return [*model, "--data.name", "voc", "--data.root", place.here / "voc", "--data.test_split", "test"]

    return Kind(name, "evaluate_detector", arguments, message)


def xml(content: str | bytes) -> Callable[[Path], Any]:
    """Puts this into the annotation of test_0."""
    data = content.encode() if isinstance(content, str) else content
    return lambda year: (year / "Annotations" / "test_0.xml").write_bytes(data)


def listed(content: str | bytes) -> Callable[[Path], Any]:
    """Puts this into the list of pictures."""
    data = content.encode() if isinstance(content, str) else content
    return lambda year: (year / "ImageSets" / "Main" / "test.txt").write_bytes(data)


def replaced(file: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Puts something else in the place of a file."""

    def change(year: Path) -> None:
        (year / file).unlink()
        make(year / file)

    return change


def object_of(corners: str, name: str = "ring") -> str:
    """An annotation of one object."""
    size = "<size><width>64</width><height>64</height></size>"
    return f"<annotation>{size}<object><name>{name}</name><bndbox>{corners}</bndbox></object></annotation>"


def classes(name: str, change: Callable[[Path], Any], message: str, *options: str) -> Kind:
    """Class folders that `pretrain` refuses: {train,val}/{a,b}/{0,1}.png."""

    def arguments(place: Place) -> list[Any]:
        for folder in ("train/a", "train/b", "val/a", "val/b"):
            for number in range(2):
                place.picture(f"set/{folder}/{number}.png")
        change(place.here / "set")
        root = ["--data.name", "folder", "--data.root", place.here / "set", "--data.augmentation", "pad_crop_flip"]
        return [*PRETRAIN, *root, "--output", place.here / "out", *options]

    return Kind(name, "pretrain", arguments, message)


def cifar(name: str, content: bytes, message: str) -> Kind:
    """A batch of CIFAR-10 that the measuring of its colours refuses."""

    def arguments(place: Place) -> list[Any]:
        for number in range(1, 6):
            place.write(f"cifar-10-batches-py/data_batch_{number}", content)
        return ["statistics", "--name", "cifar10", "--root", place.here, "--input_size", "32", "--resize", "null"]

    return Kind(name, "prepare_data", arguments, message)


def archive(name: str, member: tarfile.TarInfo, message: str) -> Kind:
    """A training archive of ImageNet that is refused."""

    def arguments(place: Place) -> list[Any]:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        return ["imagenet", "--train", place.write("train.tar", file.getvalue()), "--output", place.here / "out"]

    return Kind(name, "prepare_data", arguments, message)


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    """An entry of a tar file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    return info


ONE = "1 of 1 pictures could not be read: HERE/"
XML = "HERE/voc/VOC2007/Annotations/test_0.xml: "
PICTURE = "HERE/voc/VOC2007/JPEGImages/test_0.jpg"
LIST = "HERE/voc/VOC2007/ImageSets/Main/test.txt"
ENTITIES = "has a DOCTYPE with entities, as no annotation needs: remove it"
MEND = "mend it or leave it out"
AGAIN = "mend it or get it again"
CHECK = "(check_data.py --name voc looks through all of the set)"
BATCH = "HERE/cifar-10-batches-py/data_batch_1: "

KINDS = [
    detect(
        "a PNG of 60,000 x 60,000",
        lambda p: p.write("x.png", png(60_000, 60_000)),
        f"{ONE}x.png: picture too large (...): make it smaller or leave it out",
    ),
    detect(
        "a PNG of no pixels",
        lambda p: p.write("x.png", png(0, 0)),
        f"{ONE}x.png: not a picture that can be read (...): {MEND}",
    ),
    detect(
        "a web page named .jpg",
        lambda p: p.write("x.jpg", "<html>"),
        f"{ONE}x.jpg: not a picture that can be read (...): {MEND}",
    ),
    detect(
        "an empty picture", lambda p: p.write("x.jpg", ""), f"{ONE}x.jpg: not a picture that can be read (...): {MEND}"
    ),
    detect(
        "a drawing in SVG",
        lambda p: p.write("x.png", "<svg/>"),
        f"{ONE}x.png: not a picture that can be read (...): {MEND}",
    ),
    detect("a device as the picture", lambda _: "/dev/zero", "/dev/zero: no such file or folder"),
    detect(
        "a folder without pictures", lambda p: p.here, "HERE: holds no pictures (...); those in folders ... --recursive"
    ),
    voc("a billion laughs", xml(BILLION_LAUGHS), f"{XML}{ENTITIES} {CHECK}"),
    voc("an external entity", xml(EXTERNAL), f"{XML}{ENTITIES} {CHECK}"),
    voc(
        "an unknown encoding",
        xml('<?xml version="1.0" encoding="klingon"?><a/>'),
        f"{XML}not an XML file that can be read (LookupError: ...): {AGAIN} {CHECK}",
    ),
    voc(
        "an XML file cut off",
        xml("<annotation><object>"),
        f"{XML}not an XML file that can be read (ParseError: ...): {AGAIN} {CHECK}",
    ),
    voc(
        "a terminal's codes in XML",
        xml("<annotation>\x1b[31m</annotation>"),
        f"{XML}not an XML file that can be read (ParseError: ...): {AGAIN} {CHECK}",
    ),
    voc(
        "a corner that is not a number",
        xml(object_of("<xmin>nan</xmin>")),
        f"{XML}<bndbox/xmin> of <object> is 'nan', not a number: mend it {CHECK}",
    ),
    voc(
        "a corner at infinity",
        xml(object_of("<xmin>1e999</xmin>")),
        f"{XML}<bndbox/xmin> of <object> is '1e999', not a number: mend it {CHECK}",
    ),
    voc(
        "an object without a name", xml(object_of("", " ")), f"{XML}an object without a name: name or remove it {CHECK}"
    ),
    voc(
        "a picture of 1e12 pixels",
        xml("<annotation><size><width>1e12</width><height>1</height></size></annotation>"),
        f"{XML}a picture of 1e+12x1 pixels can't be: mend its size {CHECK}",
    ),
    voc(
        "a class with a terminal's codes",
        xml(object_of("<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>", "\x9b31m")),
        f"{XML}class '\\x9b31m' is not one of the detector's classes (...): rename it, or name data of these classes",
    ),
    voc(
        "an annotation that is a pipe",
        replaced("Annotations/test_0.xml", os.mkfifo),
        f"{XML}is no file: {AGAIN} {CHECK}",
    ),
    voc(
        "an annotation without end",
        replaced("Annotations/test_0.xml", lambda path: path.symlink_to("/dev/zero")),
        f"{XML}is no file: {AGAIN} {CHECK}",
    ),
    voc(
        "an annotation of 17 MB",
        xml(" " * (2**24 + 1)),
        f"{XML}larger than 16,777,216 bytes, as no such file is: {AGAIN} {CHECK}",
    ),
    voc(
        "a list that leads elsewhere",
        listed("../../secret\n"),
        f"{LIST}, line 1: '../../secret' is not the name of a picture: mend or remove the line",
    ),
    voc(
        "a list with zero bytes",
        listed("test_0\na\0b\n"),
        f"{LIST}, line 2: 'a\\x00b' is not the name of a picture: mend or remove the line",
    ),
    voc(
        "a list with a second column",
        listed("test_0 -1\n"),
        f"{LIST}, line 1: 'test_0 -1' is not the name of a picture: mend or remove the line",
    ),
    voc("a list in Latin-1", listed(b"caf\xe9\n"), f"{LIST}: is not in UTF-8 (...): save it as UTF-8"),
    voc("a list of nothing", listed("\n \n"), f"{LIST}: lists no pictures: fill it or name another split"),
    voc(
        "a picture listed twice",
        listed("test_0\ntest_0\n"),
        "HERE/voc: picture 'test_0' is listed twice in split 'test': list it once",
    ),
    voc(
        "a list that is a pipe",
        replaced("ImageSets/Main/test.txt", os.mkfifo),
        f"{LIST}: is no file: put a list of pictures there",
    ),
    voc(
        "a picture that is gone",
        lambda year: (year / "JPEGImages/test_0.jpg").unlink(),
        f"{XML}its picture {PICTURE} is missing: put it there or take it off the list {CHECK}",
    ),
    voc(
        "a picture that is a pipe",
        replaced("JPEGImages/test_0.jpg", os.mkfifo),
        f"{PICTURE}: not a picture that can be read (it is no file): {MEND}",
    ),
    classes(
        "a class folder of no pictures",
        lambda root: shutil.rmtree(root / "train/a") or (root / "train/a").mkdir(),
        "HERE/set/train/a: holds no pictures (...): put some there or remove it",
    ),
    classes(
        "class folders one level deeper",
        lambda root: shutil.copytree(root / "train", root / "val/train"),
        "HERE/set/val/train: ...",
    ),
    classes(
        "a picture that is a folder",
        lambda root: (root / "train/a/2.png").mkdir(),
        f"HERE/set/train/a/2.png: is no file: {MEND}",
    ),
    classes(
        "a picture linked to itself",
        lambda root: (root / "val/a/2.png").symlink_to("2.png"),
        f"HERE/set/val/a/2.png: can't be read (Too many levels of symbolic links): {MEND}",
    ),
    classes(
        "a picture linked to nothing",
        lambda root: (root / "val/a/2.png").symlink_to("/nowhere"),
        "HERE/set/val/a/2.png: no such picture: put it there or leave it out",
    ),
    classes(
        "a picture without end",
        lambda root: (root / "val/a/2.png").symlink_to("/dev/zero"),
        f"HERE/set/val/a/2.png: is no file: {MEND}",
    ),
    classes(
        "a corrupt picture with a terminal's codes in its name",
        lambda root: (root / "val/a/\x1b[31m.png").write_text("x"),
        f"HERE/set/val/a/\\x1b[31m.png: not a picture that can be read (of no known format): {MEND}",
    ),
    classes(
        "a corrupt picture whose name is not UTF-8",
        lambda root: Path(os.fsdecode(os.fsencode(root) + b"/val/a/\xe9.png")).write_text("x"),
        f"HERE/set/val/a/\\udce9.png: not a picture that can be read (of no known format): {MEND}",
    ),
    classes(
        "the Mac's hidden copy of a picture",
        lambda root: (root / "val/a/._1.png").write_bytes(b"\0\5\26\7"),
        f"HERE/set/val/a/._1.png: not a picture that can be read (of no known format): {MEND}",
    ),
    classes(
        "a file for a split",
        lambda root: None,
        "HERE/set/train/a/0.png: no such folder (expected ...)",
        "--data.train_split",
        "train/a/0.png",
    ),
    cifar("a pickle with code", pickle.dumps(Trap()), f"{BATCH}not a batch of CIFAR-10 ..."),
    cifar("a pickle of something else", pickle.dumps([1, 2, 3]), f"{BATCH}not a batch of CIFAR-10 ..."),
    cifar(
        "10,000 levels of a pickle",
        b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".",
        f"{BATCH}not a batch of CIFAR-10 ...",
    ),
    cifar("an empty batch", b"", f"{BATCH}not a batch of CIFAR-10 ..."),
    archive("a tar that leads elsewhere", member("../n01440764.tar"), "HERE/train.tar: ..."),
    archive("a tar with a link", member("n01440764.tar", tarfile.SYMTYPE), "HERE/train.tar: ..."),
    archive("a tar with a device", member("n01440764.tar", tarfile.CHRTYPE), "HERE/train.tar: ..."),
    Kind(
        "a tar that is gzip",
        "prepare_data",
        lambda p: ["imagenet", "--train", p.write("t.tar", b"\x1f\x8b\x08" + bytes(20)), "--output", p.here / "out"],
        "HERE/t.tar: ...",
    ),
    Kind(
        "an archive that is a pipe",
        "prepare_data",
        lambda p: [os.mkfifo(p.here / "t.tar"), "imagenet", "--train", p.here / "t.tar", "--output", p.here / "out"][
            1:
        ],
        "HERE/t.tar: ...",
    ),
    Kind(
        "shards that are none",
        "prepare_data",
        lambda p: ["verify_shards", "--root", p.here],
        "HERE/train/index.safetensors: ...",
    ),
    Kind(
        "annotations with a name twice",
        "check_data",
        lambda p: [
            "--name",
            "coco",
            "--root",
            p.write(
                "annotations/instances_val.json",
                {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]},
            ).parent.parent,
            "--workers",
            "0",
        ],
        "HERE: 2 error(s) found, see above",
    ),
    Kind(
        "a COCO picture outside of its folder",
        "check_data",
        lambda p: [
            "--name",
            "coco",
            "--root",
            p.write(
                "annotations/instances_val.json",
                {
                    "images": [{"id": 1, "file_name": "/etc/passwd", "height": 9, "width": 9}],
                    "annotations": [],
                    "categories": [{"id": 1, "name": "a"}],
                },
            ).parent.parent,
            "--workers",
            "0",
        ],
        "HERE: 1 error(s) found, see above",
    ),
    Kind(
        "a localiser without a classifier",
        "train_localiser",
        lambda p: ["--data.root", p.here, "--output", p.here / "out"],
        "backbone.weights ...",
    ),
    Kind(
        "a data set of no known layout",
        "train_detector",
        lambda p: [
            "--data.name",
            "coco",
            "--data.root",
            p.here,
            "--backbone.weights",
            p.shared / "backbone.safetensors",
            "--output",
            p.here / "out",
        ],
        "HERE...",
    ),
]
