"""Mutations of pickles, zip and tar archives that keep their structure; checksums fit again.

Each takes an input and a source of chance and gives a changed input; None where the input has no such structure any
more: bytes are then changed blindly.
"""

import io
import pickletools
import random
import zipfile
from typing import Any

from .binary_mutations import change_bytes
from .values import TEXTS


def mutate_pickle(data: bytes, rng: random.Random) -> bytes | None:
    """A pickle with an opcode changed, gone, doubled, or others put in: code, references, sizes that are not there."""
    try:
        starts = [place for _, _, place in pickletools.genops(data)]
    except Exception:  # pickletools raises all kinds of errors
        return None
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(parts))
        kind = rng.randrange(5)
        if kind == 0:
            del parts[place]
        elif kind == 1:
            parts.insert(place, rng.choice(parts))
        elif kind == 2:
            parts[place] = rng.choice(_OPCODES)
        elif kind == 3:
            parts.insert(place, rng.choice(_OPCODES))
        else:
            parts.insert(place, rng.choice(_CALLS))
        parts = parts or [b"."]
    return b"".join(parts)


_GROWING = b"".join([b"(t", *(b"q%c(h%ch%ct" % (i, i, i) for i in range(40)), b"q\x50"])  # a tuple of 2**40 leaves
_OPCODES = (
    b"N", b"0", b"2", b"(", b"t", b"l", b"d", b"]", b"}", b")", b"a", b"e", b"s", b"u", b"R", b"b", b"\x81", b"\x88",
    b"\x8f", b"K\x07", b"J\xff\xff\xff\xff", b"\x8a\xff" + b"\xff" * 255, b"U\x01a", b"C\x01a", b"X\x01\0\0\0a",
    b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x96" + b"\0\0\0\x40\0\0\0\0", b"r\xff\xff\xff\x07",
    b"r\xff\xff\xff\x7f", b"h\0", b"q\0", b"\x94", b"\x95" + b"\xff" * 8, b"I99\n", b"L9L\n", b"Fnan\n", b"P1\n",
    b"Q", b"\x85", b"\x86", b"\x87", b".", b"\x91", _GROWING,
)  # fmt: skip
_CALLS = (
    b"cos\nsystem\n(U\x04truetR", b"cbuiltins\neval\n(U\x031+1tR", b"cbuiltins\nbytearray\n(J\0\0\0\x40tR",
    b"cnumpy\nndarray\n", b"cnumpy\nndarray\n((J\0\0\0\x20tU\x01OtR", b"cnumpy\ndtype\n(U\x0bV1000000000tR",
    b"c_codecs\nencode\n(U\x01aU\x03hextR", b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x0bV1000000000tRtR",
    b"ccollections\nOrderedDict\n)R", b"ctorch\nTensor\n)R", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"cargparse\nNamespace\n)R",
)  # fmt: skip


def mutate_zip(data: bytes, rng: random.Random, inner: Any = None) -> bytes | None:
    """An archive with one of its files changed (as `inner` does), renamed, doubled, gone, or packed in another way.

    Checksums fit again; it is the archive's directory that mutations of bytes reach anyway.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [(info.filename, archive.read(info)) for info in archive.infolist() if info.file_size < 2**16]
    except Exception:  # zipfile raises all kinds of errors on damaged archives
        return None
    if not files:
        return None
    place = rng.randrange(len(files))
    name, content = files[place]
    action = rng.randrange(6)
    method = zipfile.ZIP_STORED if rng.random() < 0.9 else zipfile.ZIP_DEFLATED
    if action == 0:
        files[place] = (
            rng.choice((*TEXTS[:20], "../x", "/x", "a/../../x", "a/", "C:\\x")).replace("\ud800", "?"),
            content,
        )
    elif action == 1:
        del files[place]
    elif action == 2:
        files.append((name, bytes(2**20)))
        method = zipfile.ZIP_DEFLATED
    else:
        changed = inner(content, rng) if inner and name.endswith(".pkl") else change_bytes(content, rng)
        files[place] = (name, content if changed is None else changed)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name) if method == zipfile.ZIP_STORED else name, content)
    return stream.getvalue()


def mutate_checkpoint(data: bytes, rng: random.Random) -> bytes | None:
    """A checkpoint of PyTorch's, whose pickle is changed inside of its archive."""
    return mutate_zip(data, rng, mutate_pickle)


def mutate_tar(data: bytes, rng: random.Random) -> bytes | None:
    """A tar archive one of whose headers is changed; its checksum fits again."""
    blocks = [place for place in range(0, len(data) - 511, 512) if data[place + 257 : place + 262] == b"ustar"]
    if not blocks:
        return None
    place = rng.choice(blocks)
    header = bytearray(data[place : place + 512])
    start, length, values = rng.choice(
        (
            (0, 100, [text.encode("utf-8", "replace") for text in TEXTS] + [b"../x", b"/x", b"a" * 100, b"\xff\xfe"]),
            (124, 12, [b"0", b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1", b"9", b"1000"]),
            (156, 1, [bytes((kind,)) for kind in b"0123456789gxLKSV\0"]),
            (100, 8, [b"\xff" * 8, b"x", b""]),
            (136, 12, [b"\xff" * 12, b"x", b"\x80" + b"\xff" * 11]),
            (345, 155, [b"..", b"/", b"a" * 155]),
        )
    )
    header[start : start + length] = rng.choice(values)[:length].ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + bytes(header) + data[place + 512 :]
