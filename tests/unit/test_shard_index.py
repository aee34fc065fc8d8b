"""An index of shards comes from anywhere: whatever it says, nothing outside of the shards is read."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.data.shards.index import ShardIndex, parse_index, save_index
from backbones.errors import DataError


def small_index() -> ShardIndex:
    return ShardIndex(
        ["a", "b"],
        shard_sizes=np.array([4096, 8192]),
        shard_digests=np.arange(64, dtype=np.uint8).reshape(2, 32),
        pictures_by_shard=np.array([1, 2]),
        offsets=np.array([512, 512, 4096]),
        lengths=np.array([100, 200, 4096], np.int32),
        labels=np.array([0, 1, 1], np.int32),
        name_ends=np.array([3, 6, 9]),
        names=np.frombuffer(b"a/xb/yb/z", np.uint8),
    )


def saved(tmp_path: Path, index: ShardIndex) -> bytes:
    save_index(tmp_path / "index", index)
    return (tmp_path / "index").read_bytes()


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    index = parse_index(saved(tmp_path, small_index()), "index")
    assert index.class_names == ["a", "b"]
    assert [index.name(k) for k in range(3)] == ["a/x", "b/y", "b/z"]
    assert index.ends.tolist() == [1, 3]
    assert index.digest() == small_index().digest()
    for name in ("shard_sizes", "shard_digests", "offsets", "lengths", "labels"):
        np.testing.assert_array_equal(getattr(index, name), getattr(small_index(), name))


EMPTIED = ("offsets", "lengths", "labels", "name_ends", "names")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"offsets": [512, 512, 4097]}, "picture 2 lies outside of its shard"),
        ({"offsets": [512, 512, 2**63 - 1]}, "picture 2 lies outside"),
        ({"offsets": [-1, 512, 512]}, "picture 0 lies outside"),
        ({"lengths": [100, -200, 10]}, "picture 1 lies outside"),
        ({"lengths": [100, 0, 10]}, "picture 1 lies outside"),
        ({"lengths": [100, 200, 2**31 - 1]}, "picture 2 lies outside"),
        ({"shard_sizes": [4096, 2**62], "lengths": [1, 1, 2**31 - 1]}, "impossible size"),
        ({"shard_sizes": [-5, 8192]}, "impossible size"),
        ({"pictures_by_shard": [2, 2]}, "do not hold the 3 pictures"),
        ({"pictures_by_shard": [4, -1]}, "do not hold"),
        ({"pictures_by_shard": [2**62, 2**62]}, "do not hold"),
        ({"pictures_by_shard": [0, 3]}, "do not hold"),
        ({"pictures_by_shard": [3]}, "shard_digests are not uint8 of shape|shard_sizes are not int64 of shape"),
        ({"labels": [0, 1, 2]}, "a label is none of its 2 classes"),
        ({"labels": [0, -1, 1]}, "a label is none"),
        ({"labels": [0, 1]}, "labels are not int32 of shape"),
        ({"name_ends": [3, 2, 9]}, "names are not as long"),
        ({"name_ends": [3, 6, 10]}, "names are not as long"),
        ({"name_ends": [-1, 6, 9]}, "names are not as long"),
        ({"class_names": ["a", "a"]}, "same class twice"),
        ({"class_names": []}, "no list of names"),
        ({"class_names": ["a", 3]}, "no list of names"),
        ({"class_names": ["a", "\ud800"]}, "its class_names are no text"),
        (dict.fromkeys(EMPTIED, ()), "lists no pictures"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    arrays = {name: value if name == "class_names" else np.array(value) for name, value in changes.items()}
    content = saved(tmp_path, replace(small_index(), **arrays))
    with pytest.raises(DataError, match=rf"^there/index: .*({problem}).*; make the shards anew"):
        parse_index(content, "there/index")


def test_foreign_files_are_no_index(tmp_path: Path) -> None:
    whole = saved(tmp_path, small_index())
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])

    def with_header(**changes: Any) -> bytes:
        text = json.dumps(header | changes).encode()
        return struct.pack("<Q", len(text)) + text + whole[8 + size :]

    wrong = with_header(offsets=header["offsets"] | {"dtype": "F64"})
    huge = with_header(names=header["names"] | {"shape": [2**40]})
    nested = with_header(__metadata__={"class_names": "[" * 100_000})
    for content in (
        b"",
        b"x",
        whole[:-1],
        whole[:30],
        b"\xff" * 100,
        wrong,
        huge,
        nested,
        with_header(__metadata__={}),
    ):
        with pytest.raises(DataError, match=r"^index: "):
            parse_index(content, "index")


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_changed_byte_leads_outside(data: st.DataObject) -> None:
    """Either it is refused, or all that it lists lies inside the shards that it lists."""
    content = bytearray(_CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        index = parse_index(bytes(content), "index")
    except DataError:
        return
    shard = np.searchsorted(index.ends, np.arange(len(index)), side="right")
    assert all(
        512 <= int(o) < int(o) + int(n) <= int(index.shard_sizes[s])
        for o, n, s in zip(index.offsets, index.lengths, shard, strict=True)
    )
    assert all(isinstance(index.name(k), str) and index.class_names[index.labels[k]] for k in range(len(index)))


def _content() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return saved(Path(folder), small_index())


_CONTENT = _content()
