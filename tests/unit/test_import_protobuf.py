"""Bytes that anyone may have written: what is encoded is read back, and nothing but a refusal comes of the rest."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from caffe_networks import delimited, encode, encode_blob, varint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backbones.errors import CheckpointError
from backbones.importing.caffe import read_mean, read_network
from backbones.importing.protobuf import MOST_FIELDS, MessageError, read_fields

FILE_SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fields(message: bytes) -> list[tuple[int, int | bytes]]:
    read = read_fields(memoryview(message))
    return [(f.number, f.value if isinstance(f.value, int) else bytes(f.value)) for f in read]


def test_the_examples_of_the_formats_description() -> None:
    assert fields(bytes.fromhex("089601")) == [(1, 150)]
    assert fields(bytes.fromhex("120774657374696e67")) == [(2, b"testing")]
    assert fields(bytes.fromhex("1a03089601")) == [(3, bytes.fromhex("089601"))]
    assert fields(bytes.fromhex("08ffffffffffffffffff01")) == [(1, 2**64 - 1)]


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1) | st.binary(max_size=20)), max_size=8))
def test_what_is_written_is_read(written: list[tuple[int, int | bytes]]) -> None:
    message = b"".join(
        varint(n << 3) + varint(value) if isinstance(value, int) else delimited(n, value) for n, value in written
    )
    assert fields(message) == written


@given(st.lists(st.tuples(st.sampled_from([5, 8, 300]), st.integers(1, 200)), max_size=5), st.booleans())
def test_arrays_that_are_not_packed_come_joined(runs: list[tuple[int, int]], double: bool) -> None:
    """Runs of any length, of fields of one or two bytes of tag."""
    size = 8 if double else 4
    message, expected = b"", []
    for i, (number, count) in enumerate(runs):
        values = [bytes([i, j % 256] + [7] * (size - 2)) for j in range(count)]
        message += b"".join(varint(number << 3 | (1 if double else 5)) + value for value in values)
        if expected and expected[-1][0] == number:
            expected[-1] = (number, expected[-1][1] + b"".join(values))
        else:
            expected.append((number, b"".join(values)))
    assert fields(message) == expected


@pytest.mark.parametrize(
    "message",
    ["08", "0896", "0a", "0a05616263", "0d000000", "09000000", "0b", "0c", "0e", "0001",
     "08ffffffffffffffffff02", "08ffffffffffffffffffff01", "0affffffffffffffffff01"],
)  # fmt: skip
def test_what_is_no_message_is_refused(message: str) -> None:
    with pytest.raises(MessageError):
        fields(bytes.fromhex(message))


def test_too_many_fields_are_refused() -> None:
    assert len(fields(b"\x08\x00" * MOST_FIELDS)) == MOST_FIELDS
    with pytest.raises(MessageError, match="10000 fields"):
        fields(b"\x08\x00" * (MOST_FIELDS + 1))


BLOBS = arrays.arrays(
    st.sampled_from([np.float32, np.float64]), arrays.array_shapes(max_dims=4, max_side=4), elements=st.integers(-9, 9)
)


@FILE_SETTINGS
@given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.lists(BLOBS, min_size=1, max_size=3), min_size=1, max_size=4),
    st.fixed_dictionaries(dict.fromkeys(["old", "legacy", "packed", "double"], st.booleans())),
)
def test_any_network_is_read_as_it_was_written(tmp_path: Path, blobs: dict, how: dict[str, bool]) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(encode(blobs, **how))
    read = read_network(path)
    assert read.layers.keys() == blobs.keys()
    for name, written in blobs.items():
        for ours, theirs in zip(read.blobs(name, *(blob.shape for blob in written)), written, strict=True):
            assert np.array_equal(ours, theirs)


GOOD = encode({"conv1": [np.ones((2, 3)), np.ones(2)], "fc": [np.ones((1, 2))]}, extra=["relu"])


@FILE_SETTINGS
@given(
    st.binary(max_size=80)
    | st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), st.binary(max_size=6)).map(
        lambda t: GOOD[: t[0]] + t[2] + GOOD[t[0] + t[1] :]
    )
)
def test_damaged_files_give_a_network_or_a_refusal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    for read in (read_network, read_mean):
        try:
            read(path)
        except CheckpointError as error:
            assert "net.caffemodel" in str(error)  # noqa: PT017 (it need not be raised)
            assert len(str(error).splitlines()) == 1  # noqa: PT017


@pytest.mark.parametrize(
    "blob",
    [
        varint(1 << 3) + varint(2**40),  # four numbers of a shape, no data
        delimited(7, delimited(1, varint(0) + varint(2**62))),
        delimited(7, delimited(1, varint(2**63) * 2)),
        delimited(7, delimited(1, varint(1) * 40)) + delimited(5, b"\0\0\0\0"),
        delimited(7, delimited(1, varint(2))) + delimited(5, b"\0" * 9),
        delimited(7, delimited(1, varint(3))) + delimited(5, b"\0" * 8),
        delimited(7, varint(1 << 3 | 5) + b"\1\1\1\1"),
        varint(5 << 3) + varint(7),
        delimited(1, b"x"),
        varint(7 << 3) + varint(1),
    ],
)
def test_impossible_blobs_are_refused(blob: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(delimited(100, delimited(1, b"conv9") + delimited(7, blob)))
    with pytest.raises(CheckpointError, match=r"net\.caffemodel.*'conv9'"):
        read_network(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    layer = delimited(100, delimited(1, b"conv9") + delimited(7, encode_blob(np.ones(2))))
    contents = {
        b"": "can't be read",
        b"PK\x03\x04 a zip file": "not a .caffemodel",
        b'layer { name: "data" }': "not a .caffemodel",
        b"\x0a\x03net": "no layers with weights",
        layer + layer: "'conv9' comes twice",
        delimited(100, delimited(1, b"conv9") + delimited(7, b"") * 17): "more than 16 blobs",
        delimited(100, delimited(1, b"\xff\xff")): "no text",
        varint(100 << 3) + varint(5): "whole number",
    }
    for content, words in contents.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"net\\.caffemodel.*{words}"):
            read_network(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_network(tmp_path)


def test_weights_stay_in_the_file_until_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(encode({f"fc{i}": [np.ones((1000, 500), np.float32)] for i in range(4)}))
    tracemalloc.start()
    network = read_network(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    network.blobs("fc2", (1000, 500))
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
