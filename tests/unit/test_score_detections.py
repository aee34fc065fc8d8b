"""The command score_detections."""

import json
import sys
from functools import partial

import pytest

from detection import score
from detection.evaluate.coco import COCO_METRICS, PER_CLASS_METRICS


@pytest.fixture
def coco_files(tmp_path):
    annotations = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 100}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0},
            # Official scores count what a training set would drop: this box has no area.
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [50, 50, 0, 20], "area": 10, "iscrowd": 0},
        ],
    }
    results = [{"image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20], "score": 0.9}]
    (tmp_path / "gt.json").write_text(json.dumps(annotations))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    return tmp_path / "gt.json", tmp_path / "dt.json"


@pytest.fixture
def voc_folders(tmp_path):
    year = tmp_path / "VOC2007"
    for name in ("Annotations", "ImageSets/Main"):
        (year / name).mkdir(parents=True)
    (year / "ImageSets/Main/test.txt").write_text("000001\n")
    (year / "ImageSets/Main/mine.txt").write_text("000001\n")
    (year / "Annotations/000001.xml").write_text(
        "<annotation><size><width>100</width><height>100</height></size><object><name>cat</name><difficult>0</difficult>"
        "<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object></annotation>"
    )
    results = tmp_path / "results"
    results.mkdir()
    for split in ("test", "mine"):
        (results / f"comp4_det_{split}_cat.txt").write_text("000001 0.9 11 11 30 30\n")
    return year, results


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["score_detections", *map(str, arguments)])
    score.main()


def test_coco_files_by_every_metric(coco_files, tmp_path, monkeypatch, capsys):
    annotations, detections = coco_files
    output = tmp_path / "new" / "scores.json"
    run(
        monkeypatch, "--annotations", annotations, "--detections", detections,
        "--metric", "coco", "voc07", "voc12", "--output", output,
    )  # fmt: skip
    results = json.loads(output.read_text())
    assert list(results) == ["coco", "voc07", "voc12"]
    assert list(results["coco"]) == [*COCO_METRICS, "per_class"]
    assert results["coco"]["per_class"]["cat"] == pytest.approx({n: results["coco"][n] for n in PER_CLASS_METRICS})
    assert set(results["coco"]["per_class"]["dog"].values()) == {None}
    assert results["coco"]["AR100"] == pytest.approx(50)
    assert results["coco"]["APl"] is None
    assert results["voc12"] == {"mAP": 50, "per_class": {"cat": 50, "dog": None}}
    assert [f.name for f in output.parent.iterdir()] == ["scores.json"]
    printed = capsys.readouterr().out
    assert "AP50" in printed
    assert "voc07   voc12" in printed


@pytest.mark.parametrize("split", ["test", "mine"])
def test_voc_folders(voc_folders, tmp_path, monkeypatch, capsys, split):
    year, results = voc_folders
    run(
        monkeypatch, "--annotations", year, "--detections", results, "--metric", "voc07", "coco",
        "--split", split, "--output", tmp_path / "out.json",
    )  # fmt: skip
    written = json.loads((tmp_path / "out.json").read_text())
    with pytest.raises(SystemExit):
        run(
            monkeypatch, "--annotations", year, "--detections", results, "--metric", "voc07",
            "--split", split, "--output", tmp_path / "out.json",
        )  # fmt: skip
    assert "holds results already (out.json)" in capsys.readouterr().err
    assert written["voc07"] == {"mAP": 100, "per_class": {"cat": 100}}
    assert written["coco"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--metric", "voc08"], "voc08"),
        (["--output", "/proc/nowhere/scores.json"], "/proc/nowhere/scores.json: can't be written"),
        (["--annotations", "/nowhere.json"], "/nowhere.json: no such file"),
        (["--detections", "/none.json"], "/none.json: no such file"),
    ],
)
def test_what_is_wrong_is_named(coco_files, monkeypatch, capsys, change, message):
    annotations, detections = coco_files
    options = {"--annotations": annotations, "--detections": detections, "--metric": "coco", **dict([change])}
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *[word for option in options.items() for word in option])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def refusal(monkeypatch, capsys, annotations, detections, metric="coco"):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "--annotations", annotations, "--detections", detections, "--metric", metric)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_voc_annotations_need_a_folder_and_coco_annotations_a_file(voc_folders, coco_files, monkeypatch, capsys):
    message = refusal(monkeypatch, capsys, voc_folders[0], coco_files[1], "voc07")
    assert "dt.json: not a folder of comp4_det_test_<class>.txt" in message
    assert "results: is a folder without detections.json; COCO annotations go with" in refusal(
        monkeypatch, capsys, coco_files[0], voc_folders[1]
    )


def test_a_folder_of_evaluate_detector_is_taken(coco_files, monkeypatch, capsys):
    annotations, detections = coco_files
    folder = annotations.parent / "found"
    folder.mkdir()
    detections.rename(folder / "detections.json")
    run(monkeypatch, "--annotations", annotations, "--detections", folder, "--metric", "voc12")
    assert "1 detections in 1 pictures" in capsys.readouterr().out


def test_contiguous_labels_are_recognised(coco_files, monkeypatch, capsys):
    annotations, detections = coco_files
    detections.write_text(json.dumps([{"image_id": 1, "category_id": 0, "bbox": [1, 1, 2, 2], "score": 1}] * 3))
    message = refusal(monkeypatch, capsys, annotations, detections)
    assert "detection number 1: category_id 0 is not listed" in message
    assert "3 of 3 detections" in message
    assert "all lie in 0..1: they look like contiguous labels" in message
    assert "from 3 to 8" in message


def coco_notes(coco_files, monkeypatch, capsys, boxes, scores=(0.9,), pictures=1, categories=(3, 8)):
    annotations, detections = coco_files
    truth = json.loads(annotations.read_text())
    truth["images"] = [{"id": k, "file_name": "a.jpg", "height": 100, "width": 200} for k in range(1, pictures + 1)]
    annotations.write_text(json.dumps(truth))
    rows = [
        {"image_id": 1, "category_id": category, "bbox": box, "score": score}
        for box in boxes
        for score in scores
        for category in categories
    ]
    detections.write_text(json.dumps(rows))
    run(monkeypatch, "--annotations", annotations, "--detections", detections, "--metric", "coco")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{len(rows)} detections in {pictures} pictures, 2 classes"
    return [line.removeprefix("note: ") for line in printed if line.startswith("note: ")]


def test_what_is_as_it_should_be_is_not_noted(coco_files, monkeypatch, capsys):
    # Boxes may reach a pixel outside; a dog needs no detection, of which there is no object.
    assert coco_notes(coco_files, monkeypatch, capsys, [[10, 10, 20, 20], [-1, -1, 202, 102]], categories=[3]) == []


def test_what_looks_odd_is_noted(coco_files, monkeypatch, capsys):
    notes = partial(coco_notes, coco_files, monkeypatch, capsys)
    assert notes([[10, 10, 20, 20]], pictures=3) == ["2 of 3 pictures have no detection"]
    assert notes([[10, 10, 20, 20]], categories=[8]) == [
        "1 of 1 classes with objects have no detection, so an AP of 0: cat"
    ]
    assert notes([[10, 10, 20, 20], [10, 10, 20, 92], [198, 0, 4, 4]]) == [
        "4 of 6 boxes reach more than a pixel outside of their picture"
    ]
    assert notes([[110, 60, 150, 90], [120, 30, 190, 60]]) == [
        "4 of 4 boxes reach more than a pixel outside of their picture; "
        "as x1, y1, x2, y2 nearly all would lie inside: COCO's boxes are x, y, width, height"
    ]
    assert notes([[10, 10, 20, 20]], scores=[-0.5, 12]) == ["scores go from -0.5 to 12: only their order counts"]
    assert notes([[0.1, 0.2, 0.5, 0.5]]) == [
        "all boxes lie in 0..1: are they fractions of their pictures? Boxes have to be in pixels"
    ]
    assert notes([[10, 10, 20, 20], [10, 10, 20, 20], [10, 10, 20, 20]]) == [
        "4 detections are there twice: the same picture, class, box and score"
    ]
    many = [[10, 10, 20 + n, 20] for n in range(101)]
    counted = "1 pictures have more than 100 detections of cat, dog; COCO counts the best 100 of a class"
    assert notes(many) == [counted]
    assert notes(many[1:]) == []
    assert notes([]) == ["there are no detections at all"]


@pytest.mark.parametrize("box", [[1e308, 1, 1e308, 1], [-1e200, 0, 1, 1], [0, 0, 1e10, 1]])
def test_boxes_beyond_any_picture_are_refused(coco_files, voc_folders, monkeypatch, capsys, box):
    annotations, detections = coco_files
    entry = {"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2], "score": 1}
    detections.write_text(json.dumps([entry, entry | {"bbox": box}]))
    assert "detection number 2: box [" in refusal(monkeypatch, capsys, annotations, detections)
    year, results = voc_folders
    corners = f"{box[0]} {box[1]} {max(box[0], box[2])} 1"
    (results / "comp4_det_test_cat.txt").write_text(f"000001 0.9 1 1 2 2\n000001 0.9 {corners}\n")
    assert "comp4_det_test_cat.txt, line 2: the box (" in refusal(monkeypatch, capsys, year, results, "voc07")


def test_names_of_foreign_files_are_escaped(coco_files, monkeypatch, capsys):
    annotations, detections = coco_files
    truth = json.loads(annotations.read_text())
    truth["categories"] = [{"id": 3, "name": "c\x1b[31m\nat"}, {"id": 8, "name": "d\ud800og"}]
    annotations.write_text(json.dumps(truth))
    detections.write_text("[]")
    run(monkeypatch, "--annotations", annotations, "--detections", detections, "--metric", "coco")
    printed = capsys.readouterr().out
    assert printed.count(r"c\x1b[31m\nat ") == 1
    printed.encode()
    assert r"1 of 2 classes: d\ud800og" in printed


def test_a_class_without_an_object_that_counts_is_left_out_and_named(voc_folders, monkeypatch, capsys):
    year, results = voc_folders
    xml = year / "Annotations/000001.xml"
    cat = xml.read_text()[xml.read_text().index("<object>") : xml.read_text().index("</annotation>")]
    dog = cat.replace("cat", "dog").replace("<difficult>0", "<difficult>1")
    cow = cat.replace("cat", "cow")
    xml.write_text(xml.read_text().replace("</annotation>", f"{dog}{cow}</annotation>"))
    (results / "comp4_det_test_dog.txt").write_text("000001 0.9 11 11 30 30\n")
    (results / "comp4_det_test_cow.txt").write_text("")
    run(monkeypatch, "--annotations", year, "--detections", results, "--metric", "voc07", "voc12", "coco")
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["cat"][:2] == ["100.00", "100.00"]
    assert rows["cat"][-2:] == ["100.00", "100.00"]
    assert rows["dog"] == ["-"] * 8
    assert rows["cow"][-2:] == ["0.00", "0.00"]
    assert rows["mAP"][-2:] == ["50.00", "50.00"]
    assert lines[-1] == "no object that counts, so left out of the mean: 1 of 3 classes: dog"
    assert "note: 1 of 2 classes with objects have no detection, so an AP of 0: cow" in lines


def test_what_looks_odd_in_voc_files_is_noted(voc_folders, monkeypatch, capsys):
    year, results = voc_folders
    (results / "comp4_det_test_cat.txt").write_text("000001 0.9 0 11 30 30\n")
    (results / "comp4_det_test_dog.txt").write_text("")
    (results / "comp4_det_test_cow.txt").write_text("")
    (results / "comp4_det_val_cow.txt").write_text("")  # of another split
    run(monkeypatch, "--annotations", year, "--detections", results, "--metric", "voc07")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert notes == [
        "note: comp4_det_test_cow.txt, comp4_det_test_dog.txt: of no class of the annotations, so not read",
        "note: 1 of 1 boxes begin at pixel 0, but VOC's pixels count from 1",
    ]
