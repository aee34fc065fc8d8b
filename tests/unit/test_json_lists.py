"""Lists that are read a part at a time: the same entries, and the same refusals, as Python's own parser gives."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.errors import DataError
from detection.data import json_lists
from detection.data.json_columns import read_json
from detection.data.json_lists import read_json_list

# Strings that look like the end of an object, where the file may be cut.
text = st.text(alphabet='{}[],":\\ aé\n', max_size=6)
plain = st.one_of(text, st.integers(-5, 2**70), st.floats(allow_nan=False), st.booleans(), st.none())
entry = st.dictionaries(text, st.one_of(plain, st.lists(plain, max_size=3), st.dictionaries(text, plain, max_size=2)))
lists = st.lists(st.one_of(entry, plain), max_size=8)
layout = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    patch = pytest.MonkeyPatch()
    patch.setattr(json_lists, "BLOCK", 16)
    yield
    patch.undo()


def read(path: Path) -> list[Any]:
    return [entry for part in read_json_list(path) for entry in part]


@settings(max_examples=150, deadline=None)
@given(lists, layout, st.sampled_from(["", " ", "\n\n"]))
def test_entries_are_those_of_the_list(tmp_path_factory, entries, layout, space):
    path = tmp_path_factory.getbasetemp() / "list.json"
    path.write_text(space + json.dumps(entries, **layout) + space, encoding="utf-8")
    expected = json.loads(path.read_text())
    found = read(path)
    for value in (expected, found):  # orjson takes numbers beyond 64 bits for floats
        value[:] = json.loads(
            json.dumps(value), parse_int=lambda digits: float(digits) if len(digits) > 18 else int(digits)
        )
    assert found == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(entry, max_size=8), st.data())
def test_what_is_no_json_is_refused(tmp_path_factory, entries, data):
    path = tmp_path_factory.getbasetemp() / "list.json"
    written = json.dumps(entries)
    place = data.draw(st.integers(0, len(written)))
    path.write_text(
        written[:place] + data.draw(st.sampled_from(["", ",", "]", "}", "{}", "[1]", '"'])) + written[place + 1 :]
    )
    try:
        is_list = isinstance(json.loads(path.read_text()), list)
    except ValueError:
        is_list = False
    if is_list:
        assert len(read(path)) == len(json.loads(path.read_text()))
    else:
        with pytest.raises(DataError, match=r"list\.json: "):
            read(path)


@pytest.mark.parametrize(
    "content",
    [
        '[{"a": 1},]',
        '\x0b[{"a": 1}]',
        '[{"a": 1}]\x0c',
        '[{"a": 1}\x0b,{"a": 1}]',
        '[{"a": 1} {"a": 2}]',
        '[{"a": 1}',
        '[{"a": 1}]]',
        "",
        "[",
        '{"a": 1}',
        "[1,]",
        '[{"a": 1}] x',
    ],
)
@pytest.mark.parametrize("padding", ["", " " * 40])
def test_corners_of_a_list_are_refused(tmp_path, content, padding):
    path = tmp_path / "list.json"
    path.write_text(content.replace("}", "}" + padding))
    with pytest.raises(DataError, match=r"list\.json: "):
        read(path)


def test_parts_are_small_and_collection_goes_on(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"a": k} for k in range(1000)]))
    parts = list(read_json_list(path))
    assert max(map(len, parts)) < 5
    assert [entry["a"] for part in parts for entry in part] == list(range(1000))
    read_json(path)
    assert gc.isenabled()


def test_objects_inside_of_objects_do_not_make_the_file_be_read_whole(tmp_path, monkeypatch):
    """As masks in the results of Mask R-CNN, with a key after them."""
    path = tmp_path / "list.json"
    entries = [{"a": k, "mask": {"size": [k, 3], "counts": "x" * (k % 40)}, "score": k / 7} for k in range(300)]
    path.write_text(json.dumps(entries))
    monkeypatch.setattr(json_lists, "read_json", None)
    assert read(path) == entries


def test_a_long_list_of_something_else_is_soon_left_to_the_other_reader(tmp_path, monkeypatch):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([1.5] * 10_000))
    searched = []
    search = json_lists._whole_entries
    monkeypatch.setattr(json_lists, "_whole_entries", lambda text: searched.append(len(text)) or search(text))
    assert read(path) == [1.5] * 10_000
    assert sum(searched) < 1000


def test_the_place_of_an_error_is_that_in_the_file(tmp_path):
    path = tmp_path / "coco.json"
    entries = [{"id": k, "segmentation": [[1, 2, 3, 4, 5, 6]]} for k in range(3)]
    path.write_text(json.dumps(entries, indent=1)[:-1] + "x]")
    with pytest.raises(json.JSONDecodeError) as right:
        json.loads(path.read_text())
    with pytest.raises(DataError, match=rf"line {right.value.lineno} column {right.value.colno} "):
        read_json(path)


def test_outlines_are_left_out_and_nothing_else(tmp_path):
    """Of a COCO file: polygons are dropped unread; a caption that speaks of them stays."""
    path = tmp_path / "coco.json"
    captions = ['a "segmentation": [1, 2]', "\\", '"segmentation"', "]}"]
    outlines: list[Any] = [[[1.5, 2e3, -3]], [], [[1], [2, 3]], {"counts": [1, 2], "size": [3, 4]}]
    pairs = zip(captions, outlines, strict=True)
    entries = [{"id": k, "caption": c, "segmentation": o, "z": [k]} for k, (c, o) in enumerate(pairs)]
    for written in (json.dumps(entries), json.dumps(entries, separators=(",", ":")), json.dumps(entries, indent=2)):
        path.write_text(written)
        for found, expected in zip(read_json(path), entries, strict=True):
            assert found.get("segmentation") in (None, expected["segmentation"])
            assert not isinstance(found.get("segmentation"), list)
            assert {k: v for k, v in found.items() if k != "segmentation"} == {
                k: v for k, v in expected.items() if k != "segmentation"
            }
