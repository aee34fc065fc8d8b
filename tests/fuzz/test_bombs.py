"""Small files that ask for all memory, for ever, for other files, or for code to be run: each is refused at once."""

import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from backbones.errors import UserError

from . import seeds
from .targets import TARGETS, look

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
# As values of a dictionary, each a pair of the one before; the last, of 2**60 leaves, is a key.
PAIRS = b"".join(b"K%ch%ch%c\x86q%c" % (i + 1, i, i, i + 1) for i in range(60))
HASHED = b"\x80\x02}(K\0)q\0" + PAIRS + b"h\x3cK\x01u."
ENCODED = (
    b"\x80\x02"
    + b"c_codecs\nencode\n" * 41
    + b"X\x01\0\0\0aX\x06\0\0\0latin1\x86R"
    + b"X\x03\0\0\0hex\x86R" * 40
    + b"."
)
NUMBERED = b"\x80\x02}r\xff\xff\xff\x7f."
TAKEN = b"\x80\x02cbuiltins\nbytearray\nJ\0\0\0\x7f\x85R."
CODE = [b"cposix\nsystem\n(S'touch %s'\ntR.", b'cbuiltins\nexec\n(S\'open("%s", "w")\'\ntR.']


def checkpoint(content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    return seeds.zipped({"a/data.pkl": content, "a/version": b"3\n", "a/byteorder": b"little"}, method)


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG of one colour, a thousand times smaller than its pixels."""
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(width * 3 + 1)) for _ in range(min(height, 100))) + rows.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    if extra:
        chunks.insert(1, (b"zTXt", b"a\0\0" + extra))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )


def refused(target: str, content: bytes, folder: Path) -> None:
    run = TARGETS[target].open(folder)

    def must_refuse(data: bytes) -> None:
        with pytest.raises((UserError, SystemExit)) as raised:
            run(data)
        raise raised.value

    assert look(TARGETS[target], must_refuse, content) is None


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS + "model: {options: *a9}\n",
        "data:\n  transforms:\n  - name: x\n    more: " + "[" * 10_000 + "]" * 10_000,
        "model: " + "{a: " * 10_000 + "}" * 10_000,
        "- " * 100_000,
        "model: &a {options: *a}",
        "&a [*a]",
        "seed: " + "9" * 100_000,
        "seed: !!python/object/apply:os.system ['touch SENTINEL']",
        "x" * 2**21,
    ],
    ids=["laughs", "lists", "names", "dashes", "itself", "all of itself", "digits", "code", "long"],
)
def test_a_config(text: str, tmp_path: Path) -> None:
    refused("pretrain_config", text.replace("SENTINEL", str(tmp_path / "run")).encode(), tmp_path)
    assert not (tmp_path / "run").exists()


ENTITIES = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
SECRET = '<!DOCTYPE x [<!ENTITY a SYSTEM "file://SECRET">]>'


@pytest.mark.parametrize("target", ["voc_xml", "det_xml", "cls_loc_xml"])
@pytest.mark.parametrize(
    "prologue",
    [
        f'<!DOCTYPE x [<!ENTITY a0 "ha">{ENTITIES}<!ENTITY a "&a11;">]>',
        f'<!DOCTYPE x [<!ENTITY a "{"ha" * 10_000}">]>',
        SECRET,
        SECRET.replace("a SYSTEM", "% a SYSTEM").replace("]>", "%a;]>"),
    ],
    ids=["laughs", "long", "external", "parameter"],
)
def test_an_annotation_with_entities(target: str, prologue: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("cat")
    xml = seeds.annotations()[0].decode().replace("<name>cat", "<name>" + "&a;" * 1000)
    refused(target, (prologue.replace("SECRET", str(tmp_path / "secret")) + xml).encode(), tmp_path / "set")


@pytest.mark.parametrize("content", [HASHED, ENCODED, NUMBERED, TAKEN], ids=["hashed", "encoded", "numbered", "taken"])
@pytest.mark.parametrize(
    ("target", "packed"),
    [("cifar10", bytes), ("checkpoint", checkpoint), ("checkpoint", bytes), ("torchvision", checkpoint)],
    ids=["cifar10", "checkpoint", "old checkpoint", "torchvision"],
)
def test_a_pickle(target: str, packed: Callable[[bytes], bytes], content: bytes, tmp_path: Path) -> None:
    if (target, packed, content) == ("checkpoint", checkpoint, NUMBERED):
        TARGETS[target].open(tmp_path)(packed(content))  # PyTorch keeps a dictionary of what is numbered: no harm
    else:
        refused(target, packed(content), tmp_path)


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize(
    ("target", "packed"),
    [("cifar10", bytes), ("checkpoint", checkpoint), ("checkpoint", bytes), ("torchvision", checkpoint)],
)
def test_a_pickle_with_code(target: str, packed: Callable[[bytes], bytes], code: bytes, tmp_path: Path) -> None:
    refused(target, packed(code % bytes(tmp_path / "run")), tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_is_compressed(tmp_path: Path) -> None:
    bomb = checkpoint(pickle.dumps({"a": bytes(2**24)}, protocol=2), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2**16
    refused("checkpoint", bomb, tmp_path)
    refused("torchvision", bomb, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        png(30_000, 30_000),
        png(11_586, 11_586),
        png(100, 200, extra=zlib.compress(bytes(2**26))),
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 65535, 65535, 1, 24, 0, 0, 0, 0, 0, 0),
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0),
    ],
    ids=["huge", "just too large", "text", "bmp", "gif"],
)
@pytest.mark.parametrize("target", ["picture", "picture_cut", "picture_bytes"])
def test_a_picture(target: str, content: bytes, tmp_path: Path) -> None:
    refused(target, content, tmp_path)


def test_archives(tmp_path: Path) -> None:
    refused("ground_truth", gzip.compress(bytes(2**28), mtime=0), tmp_path / "gzip")
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/instances_val2017.json", bytes(2**26))
    refused("coco_archive", many.getvalue(), tmp_path / "zip")
    for number, name in enumerate(("../VOCdevkit/VOC2007/JPEGImages/a.jpg", "/tmp/a.jpg", "VOCdevkit/../../a.jpg")):
        refused("voc_archive", seeds.tar(seeds.archived() | {name: b"x"}), tmp_path / f"tar{number}")
        refused("coco_archive", seeds.zipped({"val2017/1.jpg": b"x", name: b"x"}), tmp_path / f"zip{number}")


def test_a_detector_of_gigabytes_without_weights(tmp_path: Path) -> None:
    content = seeds.detector_weights()[0]
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] |= {"architecture": '"vgg16"', "options": '{"width": 256}'}
    text = json.dumps(header).encode()
    refused("detector_weights", len(text).to_bytes(8, "little") + text + content[8 + length :], tmp_path)
