"""COCO's and VOC's files of detections: written, read back, and refused."""

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backbones.errors import DataError
from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable
from detection.evaluate.files import (
    read_coco_results,
    read_voc_results,
    voc_results_file,
    write_coco_results,
    write_voc_results,
)
from detection.structures import Detections


def make_annotations(image_ids):
    return Annotations.from_objects(
        class_names=["cat", "dog"],
        category_ids=[17, 5],
        image_ids=image_ids,
        sizes=[[100, 100]] * len(image_ids),
        images=[],
        boxes=[],
        labels=[],
    )


NUMBERS, STRINGS = make_annotations([42, 7, 9]), make_annotations(["000042", "a b"[0], "2008_000001"])

coordinate = st.floats(0, 2000, width=32)
score = st.floats(0, 1, width=32)
found = st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate, score, st.integers(1, 2)), max_size=6)


def make(rows):
    """Detections of one picture, best score first."""
    rows = sorted(rows, key=lambda r: -r[4])
    table = torch.tensor([r[:5] for r in rows], dtype=torch.float32).reshape(-1, 5)
    low, high = table[:, :2].minimum(table[:, 2:4]), table[:, :2].maximum(table[:, 2:4])
    return Detections(torch.cat([low, high], 1), table[:, 4], torch.tensor([r[5] for r in rows], dtype=torch.int64))


@pytest.mark.parametrize("annotations", [NUMBERS, STRINGS], ids=["numbers", "strings"])
@settings(max_examples=20, deadline=None)
@given(st.lists(found, min_size=3, max_size=3))
@example([[], [], [(0, 2**-51.4, 0, 2**-51.4, 0, 1)]])  # its first corner and 1 add up to more than its last and 1
def test_the_way_there_and_back_loses_nothing(tmp_path_factory, annotations, rows):
    folder = tmp_path_factory.getbasetemp() / "results"
    folder.mkdir(exist_ok=True)
    detections = [make(r) for r in rows]
    written = DetectionTable.of(detections, 3)
    write_coco_results(folder / "r.json", annotations, iter(detections))
    assert_equal(read_coco_results(folder / "r.json", annotations), written, rtol=1e-15)
    write_voc_results(folder, "test", annotations, detections)
    by_class = written.where(np.argsort(written.labels, kind="stable"))  # VOC has a file for each
    assert_equal(read_voc_results(folder, "test", annotations), by_class, atol=1e-12)


def assert_equal(read, written, **tolerance):
    for name in ("images", "scores", "labels"):
        assert getattr(read, name).tolist() == getattr(written, name).tolist()
    assert np.allclose(read.boxes, written.boxes, **{"rtol": 0, "atol": 0} | tolerance)


def test_the_official_forms(tmp_path):
    d = Detections(torch.tensor([[1.5, 2, 11.5, 22]]), torch.tensor([0.1]), torch.tensor([2]))
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    write_coco_results(tmp_path / "r.json", NUMBERS, [none, d, none])
    entry = {"image_id": 7, "category_id": 5, "bbox": [1.5, 2, 10, 20], "score": 0.10000000149011612}
    assert json.loads((tmp_path / "r.json").read_text()) == [entry]
    assert torch.equal(d.boxes, torch.tensor([[1.5, 2, 11.5, 22]]))
    write_voc_results(tmp_path, "val", STRINGS, [d, none, none])
    text = (tmp_path / "comp4_det_val_dog.txt").read_text()
    assert text == "000042 0.10000000149011612 2.5 3.0 11.5 22.0\n"
    assert (tmp_path / "comp4_det_val_cat.txt").read_text() == ""
    write_coco_results(tmp_path / "r.json", STRINGS, [none, none, d])
    assert json.loads((tmp_path / "r.json").read_text())[0]["image_id"] == "2008_000001"
    write_coco_results(tmp_path / "r.json", NUMBERS, [none] * 3)
    assert json.loads((tmp_path / "r.json").read_text()) == []


def test_reading_in_parts_names_the_same_detections(tmp_path, monkeypatch):
    monkeypatch.setattr("detection.data.json_lists.BLOCK", 100)
    rows = [entry(score=k / 100, image_id=[42, 7, 9][k % 3]) for k in range(100)]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    found = read_coco_results(tmp_path / "r.json", NUMBERS)
    assert found.scores.tolist() == [k / 100 for k in range(100)]
    assert found.images.tolist() == [k % 3 for k in range(100)]
    rows[70]["bbox"] = [1, 2, -3, 4]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="detection number 71: box"):
        read_coco_results(tmp_path / "r.json", NUMBERS)
    rows[70] = entry(image_id=3)
    rows[50]["score"] = float("nan")  # Python's own parser reads this file, from its beginning
    (tmp_path / "r.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="detection number 51: 'score' is nan"):
        read_coco_results(tmp_path / "r.json", NUMBERS)
    rows[50]["score"] = 0.5
    (tmp_path / "r.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"detection number 71: image_id 3 .*the only one of 100"):
        read_coco_results(tmp_path / "r.json", NUMBERS)


def test_files_are_written_whole_or_not_at_all(tmp_path):
    d = Detections(torch.tensor([[1.5, 2, 11.5, 22]]), torch.tensor([0.1]), torch.tensor([2]))
    write_coco_results(tmp_path / "r.json", NUMBERS, [d] * 3)
    before = (tmp_path / "r.json").read_bytes()

    def broken():
        yield d
        raise RuntimeError("the detector stopped")

    with pytest.raises(RuntimeError):
        write_coco_results(tmp_path / "r.json", NUMBERS, broken())
    assert (tmp_path / "r.json").read_bytes() == before


def test_one_item_a_picture_is_asked_for(tmp_path):
    with pytest.raises(ValueError):
        write_coco_results(tmp_path / "r.json", NUMBERS, [])
    with pytest.raises(ValueError):
        write_voc_results(tmp_path, "val", NUMBERS, [])


def entry(**changes):
    result = {"image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5, **changes}
    return {k: v for k, v in result.items() if v is not ...}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "not a JSON file that can be read"),
        ({"image_id": 7}, "not a JSON list of detections"),
        ([entry(), 3], "detection number 2 is 3, not an object"),
        ([entry(), entry(image_id=8)], r"detection number 2: image_id 8 is not listed in .* \(the only one of 2\)$"),
        (
            [entry(), *[entry(image_id=k) for k in (8, 5, 8)]],
            r"detection number 2: image_id 8 .* \(3 of 4 detections name such ids, 2 in all\)$",
        ),
        (
            [entry(image_id=8)],
            "detection number 1: image_id 8 .*; none of the pictures is: are these",
        ),
        ([entry(), entry(image_id="7")], "detection number 2: image_id '7' is not listed .*; ids are numbers there"),
        ([entry(), entry(image_id=True)], "detection number 2: 'image_id' is True, not a whole number"),
        ([entry(), entry(category_id=1)], r"detection number 2: category_id 1 is not listed .*\)$"),
        ([entry(category_id=0), entry(category_id=1)], r".* all lie in 0\.\.1: .* contiguous .* from 5 to 17$"),
        ([entry(category_id=2), entry(category_id=1)], r".* all lie in 1\.\.2: .* contiguous .* from 5 to 17$"),
        ([entry(image_id=10**29)], r"detection number 1: 'image_id' is 1e\+29, not a whole .* of at most 64 bits"),
        ([entry(), entry(score=...)], "detection number 2 has no 'score'"),
        ([entry(), entry(score="high")], "detection number 2: 'score' is 'high', not finite numbers"),
        ([entry(), entry(score=float("nan"))], "detection number 2: 'score' is nan"),
        ([entry(), entry(bbox=[1, 2, 3])], "detection number 2: 'bbox' is .* not a list of 4 numbers"),
        ([entry(), entry(bbox=[1, 2, float("inf"), 3])], "detection number 2: 'bbox'"),
        ([entry(), entry(bbox=[1, 2, 3, -4])], r"detection number 2: box \[1, 2, 3, -4\] has a negative size"),
    ],
)
def test_bad_coco_results_are_named(tmp_path, content, message):
    (tmp_path / "r.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=rf"r\.json: {message}"):
        read_coco_results(tmp_path / "r.json", NUMBERS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("000042 0.5 1 2 3", "5 columns, not the 6"),
        ("000042 0.5 1 2 3 4 5", "7 columns, not the 6"),
        ("000043 0.5 1 2 3 4", "image '000043' is not listed in the split"),
        ("000042 nan 1 2 3 4", "not a finite number"),
        ("000042 0.5 1 2 inf 4", "not a finite number"),
        ("000042 0.5 1 2 x 4", "not a finite number"),
        ("000042 0.5 5 2 3 4", r"the box \(5, 2, 3, 4\) has a negative size"),
    ],
)
def test_bad_voc_lines_are_named(tmp_path, line, message):
    voc_results_file(tmp_path, "test", "cat").write_text("")
    voc_results_file(tmp_path, "test", "dog").write_text(f"000042 0.5 1 2 3 4\n\n{line}\n")
    with pytest.raises(DataError, match=rf"comp4_det_test_dog\.txt, line 3: .*{message}"):
        read_voc_results(tmp_path, "test", STRINGS)


def test_an_absent_class_file_is_named_and_an_empty_one_is_fine(tmp_path):
    voc_results_file(tmp_path, "test", "cat").write_text("")
    (tmp_path / "comp4_det_test_Dog.txt").write_text("")
    message = r": no file for 1 of 2 classes \(.*\): comp4_det_test_dog\.txt; there is comp4_det_test_Dog\.txt$"
    with pytest.raises(DataError, match=message):
        read_voc_results(tmp_path, "test", STRINGS)
    voc_results_file(tmp_path, "test", "cat").unlink()
    with pytest.raises(DataError, match=r"2 of 2 classes .*: comp4_det_test_cat\.txt, comp4_det_test_dog\.txt;"):
        read_voc_results(tmp_path, "test", STRINGS)
    for name in ("cat", "dog"):
        voc_results_file(tmp_path, "test", name).write_text("")
    assert len(read_voc_results(tmp_path, "test", STRINGS)) == 0
    with pytest.raises(DataError, match="there can't be a file of that name"):
        voc_results_file(tmp_path, "test", "../dog")
    with pytest.raises(DataError, match=r"class 'd\\ud800og': there can't be a file of that name"):
        voc_results_file(tmp_path, "test", "d\ud800og")


def test_pipes_are_not_waited_for(tmp_path):
    annotations = NUMBERS
    os.mkfifo(tmp_path / "found.json")
    with pytest.raises(DataError, match=r"found\.json: is no file"):
        read_coco_results(tmp_path / "found.json", annotations)
    for name in annotations.class_names:
        os.mkfifo(tmp_path / f"comp4_det_test_{name}.txt")
    with pytest.raises(DataError, match=r"comp4_det_test_.*\.txt: is no file"):
        read_voc_results(tmp_path, "test", annotations)
