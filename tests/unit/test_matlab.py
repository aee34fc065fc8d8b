"""The reader of MATLAB files, on a file that SciPy wrote and on what became of it."""

import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_archives import META, NUMBER_OF

from backbones.data.matlab import read_structures


def test_reads_what_scipy_wrote() -> None:
    found = list(read_structures(META, "synsets"))
    assert {entry["WNID"]: entry["ILSVRC2012_ID"] for entry in found[:10]} == NUMBER_OF
    assert found[10] == {
        "ILSVRC2012_ID": 11,
        "WNID": "n00001740",
        "words": "entity",
        "gloss": "that which is",
        "num_children": 2,
        "children": None,
        "wordnet_height": 2,
        "num_train_images": 0,
    }
    assert len(found) == 12


def test_what_is_not_there_is_said() -> None:
    for content, variable in ((META, "words"), (META, "other"), (b"", "synsets"), (b"x" * 500, "synsets")):
        with pytest.raises(ValueError, match=r"variable|structures|not a MATLAB"):
            list(read_structures(content, variable))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(META) - 1))
def test_a_cut_file_is_refused(cut: int) -> None:
    with pytest.raises(ValueError):
        list(read_structures(META[:cut], "synsets"))


def uncompressed() -> bytes:
    """META without its compression, so that damage reaches what is in it."""
    parts, place = [META[:128]], 128
    while place < len(META):
        (size,) = struct.unpack_from("<I", META, place + 4)
        parts.append(zlib.decompress(META[place + 8 : place + 8 + size]))
        place += 8 + size
    return b"".join(parts)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(128, len(uncompressed()) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused(damage: list[tuple[int, int]]) -> None:
    content = bytearray(uncompressed())
    for place, value in damage:
        content[place] = value
    try:
        found = list(read_structures(bytes(content), "synsets"))
    except ValueError:
        return
    assert all(isinstance(value, str | float | None) for entry in found for value in entry.values())


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind: int, shape: tuple[int, int], rest: bytes) -> bytes:
    flags, sizes = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack("<ii", *shape))
    return element(14, flags + sizes + element(1, b"synsets") + rest)


FIELDS = element(5, struct.pack("<i", 8)) + element(1, b"WNID\0\0\0\0")


@pytest.mark.parametrize(
    "hostile",
    [
        matrix(2, (2**30, 2**30), FIELDS),
        matrix(2, (2**15, 2**15), FIELDS + element(14, b"")),
        element(15, zlib.compress(bytes(10**8), 9)),
        struct.pack("<II", 14, 2**32 - 1),
    ],
)
def test_sizes_that_are_only_declared_take_no_memory(hostile: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError):
        list(read_structures(META[:128] + hostile, "synsets"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e7
