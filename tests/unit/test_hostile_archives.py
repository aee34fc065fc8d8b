"""`prepare_data.py voc` and `coco` on archives that are hostile, damaged, or merely large."""

import io
import re
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from official_archives import picture, tar, tree, zip_of
from voc_files import obj, xml

from detection.prepare import main

CAT = xml(obj("cat")).encode()


def link(name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


GOOD = {"VOCdevkit/VOC2007/Annotations/a.xml": CAT}


@pytest.mark.parametrize(
    ("archive", "named"),
    [
        (tar(GOOD | {"../VOCdevkit/VOC2007/Annotations/b.xml": CAT}), "which names no file below a folder"),
        (tar(GOOD | {"VOCdevkit/VOC2007/JPEGImages/../../../x.jpg": b"x"}), "which names no file below a folder"),
        (tar(GOOD | {"/tmp/x.xml": b"x"}), "which names no file below a folder"),
        (tar(GOOD | {"VOCdevkit/VOC2007/JPEGImages/x\n.jpg": b"x"}), "which names no file below a folder"),
        (tar(GOOD)[:1024] + link("VOCdevkit/VOC2007/JPEGImages/a.jpg"), "neither a file nor a folder"),
        (tar(GOOD | {"VOCdevkit/VOC2007/JPEGImages/a.jpg": b""}), r"a\.jpg: can't be of 0 bytes"),
        (tar(GOOD | {"VOCdevkit/VOC2007/Annotations/b.xml": bytes(2**24 + 1)}), "can't be of 16,777,217 bytes"),
        (tar(GOOD | {"./VOCdevkit/VOC2007/Annotations/a.xml": b"other"}), r"a\.xml: is there twice, with"),
        (tar({"n01440764/x.JPEG": b"x"}), "holds nothing new of the form VOCdevkit/VOC2007"),
        (tar(GOOD)[:700], "cut off"),
        (zip_of(GOOD), "is not a tar archive"),
    ],
)
def test_a_hostile_or_damaged_voc_archive(
    tmp_path: Path, refused: Callable[..., str], archive: bytes, named: str
) -> None:
    (tmp_path / "bad.tar").write_bytes(archive)
    message = refused("voc", "--archives", str(tmp_path / "bad.tar"), "--output", str(tmp_path / "out"))
    assert re.search(rf"bad\.tar: .*{named}", message), message
    assert set(tree(tmp_path)) == {"bad.tar"}


def zip_with(change: Callable[[zipfile.ZipInfo], None]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo("train2017/1.jpg")
        change(info)
        archive.writestr(info, picture(1))
    return file.getvalue()


def make_link(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def encrypted(content: bytes) -> bytes:
    """The archive with the flag of encryption set for its last file, in front of it and in the directory."""
    for start, flags in ((content.rfind(b"PK\3\4"), 6), (content.rfind(b"PK\1\2"), 8)):
        content = content[: start + flags] + bytes([content[start + flags] | 1]) + content[start + flags + 1 :]
    return content


def twice(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of the same
        for number in range(2):
            archive.writestr(name, picture(number))
    return file.getvalue()


def overlapping(names: list[str], zeros: int) -> bytes:
    """A zip bomb: files that all end in the same bytes, each quoting the header of the next (Fifield 2019)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    content, packed = bytes(zeros), packer.compress(bytes(zeros)) + packer.flush()
    entries, tail = [], b""
    for name in reversed(names):
        if tail:
            quoted = tail[: -len(packed)]
            content, packed = quoted + content, struct.pack("<BHH", 0, len(quoted), 65535 - len(quoted)) + tail
        common = struct.pack("<3H2H3I2H", 20, 0, 8, 0, 33, zlib.crc32(content), len(packed), len(content), len(name), 0)
        tail = b"PK\3\4" + common + name.encode() + packed
        entries.append((b"PK\1\2\24\0" + common + bytes(10), len(tail), name.encode()))
    directory = b"".join(head + struct.pack("<I", len(tail) - left) + name for head, left, name in entries)
    end = struct.pack("<4H2IH", 0, 0, len(names), len(names), len(directory), len(tail), 0)
    return tail + directory + b"PK\5\6" + end


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


PICTURES = {"train2014/COCO_train2014_000000000001.jpg": picture(1)}


@pytest.mark.parametrize(
    ("archive", "named"),
    [
        (zip_of(PICTURES | {"../x.jpg": b"x"}), "which names no file below a folder"),
        (zip_of(PICTURES | {"/tmp/x.jpg": b"x"}), "which names no file below a folder"),
        (zip_of(PICTURES | {"train2014\\x.jpg": b"x"}), "which names no file below a folder"),
        (zip_with(make_link), r"train2017/1\.jpg: is neither a file nor a folder"),
        (zip_with(lambda info: setattr(info, "compress_type", zipfile.ZIP_BZIP2)), "a method that is not supported"),
        (zip_of({"annotations/instances_x.json": bytes(10**6)}), "would unpack to 1,000,000 bytes"),
        (
            zip_of({f"annotations/instances_{k}.json": bytes(150_000) for k in range(20)}),
            "unpack to 3,000,000 bytes in",
        ),
        (overlapping([f"train2017/{k}.jpg" for k in range(9)], 100_000), r"train2017/0\.jpg: overlaps what follows"),
        (encrypted(zip_of({"train2017/1.jpg": picture(1)})), r"train2017/1\.jpg: is encrypted"),
        (twice("train2017/1.jpg"), r"train2017/1\.jpg: is there twice"),
        (zip_of({"train2017/1.jpg": b""}), r"1\.jpg: can't be of 0 bytes"),
        (zip_of({"VOCdevkit/x.jpg": b"x"}), "holds nothing new of the form train2017"),
        (zip_of(PICTURES)[:-10], "is not a zip archive, or is cut off"),
        (tar(PICTURES), "is not a zip archive"),
        (b"", "is not a zip archive"),
    ],
)
def test_a_hostile_or_damaged_coco_archive(
    tmp_path: Path, refused: Callable[..., str], archive: bytes, named: str
) -> None:
    (tmp_path / "bad.zip").write_bytes(archive)
    message = refused("coco", "--archives", str(tmp_path / "bad.zip"), "--output", str(tmp_path / "out"))
    assert re.search(rf"bad\.zip: .*{named}", message), message
    assert set(tree(tmp_path)) == {"bad.zip"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_byte_of_a_zip_is_noticed(tmp_path: Path, refused: Callable[..., str], method: int) -> None:
    content = zip_of(PICTURES, method)
    (tmp_path / "bad.zip").write_bytes(flipped(content, len(content) // 2))
    message = refused("coco", "--archives", str(tmp_path / "bad.zip"), "--output", str(tmp_path / "out"))
    assert re.search(r"COCO_train2014_000000000001\.jpg: is cut off or damaged", message)
    assert set(tree(tmp_path)) == {"bad.zip"}  # nor is the part that was read left there


def test_the_bomb_is_one() -> None:
    """Python before 3.11.8 unpacks it; later ones refuse it too."""
    archive = zipfile.ZipFile(io.BytesIO(overlapping([f"train2017/{k}.jpg" for k in range(9)], 100_000)))
    assert archive.infolist()[0].compress_size < 1000
    if not hasattr(archive.infolist()[0], "_end_offset"):
        assert all(len(archive.read(info)) >= 100_000 for info in archive.infolist())


def test_large_archives_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # which is where Python begins to write zip64
    content = zip_of(PICTURES)
    assert b"PK\6\6" in content
    monkeypatch.undo()
    (tmp_path / "a.zip").write_bytes(content)
    main(["coco", "--archives", str(tmp_path / "a.zip"), "--output", str(tmp_path / "out")])
    assert tree(tmp_path / "out") == PICTURES
