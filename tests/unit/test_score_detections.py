"""The command score_detections."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detection.evaluate import score
from detection.evaluate.coco import COCO_METRICS, PER_CLASS_METRICS

ROOT = Path(__file__).parents[2]


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
    assert written["voc07"] == {"mAP": 100, "per_class": {"cat": 100}}
    assert written["coco"]["AP"] == pytest.approx(100)


def test_the_tool_refuses_bad_input_in_one_line(coco_files, tmp_path):
    annotations, _ = coco_files
    command = [sys.executable, ROOT / "tools/score_detections.py", "--annotations", annotations]
    command += ["--detections", tmp_path / "none.json", "--metric", "coco"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "none.json: no such file" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--metric", "voc08"], "voc08"),
        (["--output", "/proc/nowhere/scores.json"], "/proc/nowhere/scores.json: can't be written"),
        (["--annotations", "/nowhere.json"], "/nowhere.json: no such file"),
    ],
)
def test_what_is_wrong_is_named(coco_files, monkeypatch, capsys, change, message):
    annotations, detections = coco_files
    options = {"--annotations": annotations, "--detections": detections, "--metric": "coco", **dict([change])}
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *[word for option in options.items() for word in option])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_voc_annotations_need_a_folder_of_results(voc_folders, coco_files, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--annotations", voc_folders[0], "--detections", coco_files[1], "--metric", "voc07")
    assert "dt.json: not a folder of comp4_det_test_<class>.txt" in capsys.readouterr().err
