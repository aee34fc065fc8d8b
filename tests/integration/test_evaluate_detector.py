"""The command `evaluate_detector`: the numbers of the run again, in files that can be scored without a model."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detector_commands import ROOT, SMALL, record, refusal, snapshot, train, write_backbone, write_coco, write_voc

from backbones.data.shapes import CLASS_NAMES
from backbones.weights import load_weights, save_weights
from detection.data.shapes import shapes_for_detection
from detection.evaluate.evaluate import Metric, evaluate_detections
from detection.evaluate.files import read_coco_results, read_voc_results
from detection.score import score
from detection.test import main as evaluate_main
from detection.train import main as train_main

METRICS: list[Metric] = ["coco", "voc07", "voc12"]
# Seen in training, so that something is found: numbers that are all zero would prove nothing.
SHAPES = ["--data.name", "shapes", "--data.test_split", "train", "--data.test_size", "5"]
OVERFIT = ["--data.train_size", "5", "--data.test_split", "train", "--train.steps", "50", "--train.checkpoint_every"]
OVERFIT += ["50", "--backbone.options", "{width: 8}", "--optimizer.lr", "0.05", "--data.flip", "false"]
ALONE = ["--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("resnet") / "resnet18.safetensors", width=8)


@pytest.fixture(scope="module")
def run(resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that finds some of the shapes that it was trained on."""
    output = tmp_path_factory.mktemp("run") / "run"
    written = train(output, resnet, *OVERFIT)
    assert written["results"]["coco"]["AP"] > 1
    return output


def evaluate(output: Path, *arguments: str) -> dict[str, Any]:
    evaluate_main([*ALONE, "--output", str(output), *arguments])
    return json.loads((output / "results.json").read_text())


def approximately(results: dict[str, Any]) -> dict[str, Any]:
    """The same numbers up to the rounding of a box's corners to widths, or to corners that count from one."""
    return {k: approximately(v) if isinstance(v, dict) else pytest.approx(v) for k, v in results.items()}


def test_the_numbers_of_the_run_again(run: Path, tmp_path: Path) -> None:
    assert evaluate(tmp_path / "a", "--model", str(run), *SHAPES) == record(run)["results"]
    # The weights file alone is enough, wherever it is; loading in other processes changes nothing.
    (tmp_path / "moved.safetensors").write_bytes((run / "weights.safetensors").read_bytes())
    moved = evaluate(tmp_path / "b", "--model", str(tmp_path / "moved.safetensors"), *SHAPES, "--workers", "2")
    assert moved == record(run)["results"]
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    some = evaluate(tmp_path / "c", "--model", str(run), *SHAPES, "--metric", "voc07")
    assert some == {"voc07": moved["voc07"]}


def test_the_files_read_back_to_the_same_numbers(run: Path, tmp_path: Path) -> None:
    results = evaluate(tmp_path, "--model", str(run), *SHAPES)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results.json", "detections.json"} | {f"comp4_det_train_{name}.txt" for name in CLASS_NAMES}
    truth = shapes_for_detection("train", 5, 64).annotations
    for found in (read_coco_results(tmp_path / "detections.json", truth), read_voc_results(tmp_path, "train", truth)):
        assert len(found) > 10
        assert evaluate_detections(truth, found, METRICS) == approximately(results)


@pytest.mark.parametrize(("root", "split"), [("", "VOC2007/test"), ("VOC2007", "test")])
def test_the_voc_layout(root: str, split: str, resnet: Path, tmp_path: Path) -> None:
    devkit = tmp_path / "VOCdevkit"
    names = ["potted plant", "b", "c&d", "é", "star", "dining-table"]
    write_voc(devkit / "VOC2007", "trainval", shapes_for_detection("train", 12, 64), names)
    write_voc(devkit / "VOC2007", "test", shapes_for_detection("val", 7, 64), names)
    data = ["--data.name", "voc", "--data.root", str(devkit / root), "--data.test_split", split]
    start = ["--backbone.weights", str(resnet), "--backbone.options", "{width: 8}", "--train.steps", "2"]
    trained = ["--data.train_split", split.replace("test", "trainval"), "--output", str(tmp_path / "run")]
    train_main([*SMALL, *start, *data, *trained, "--roi.score_threshold", "0.01"])
    results = evaluate(tmp_path / "found", "--model", str(tmp_path / "run"), *data)
    assert results == record(tmp_path / "run")["results"]
    assert list(results["voc07"]["per_class"]) == sorted(names)
    assert len(list((tmp_path / "found").glob("comp4_det_test_*.txt"))) == 6
    score(devkit / "VOC2007", tmp_path / "found", METRICS, tmp_path / "scores.json", "test")
    assert json.loads((tmp_path / "scores.json").read_text()) == approximately(results)
    assert results["coco"]["AR100"] > 0


def test_the_coco_layout(resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_coco(tmp_path, "train2017", shapes_for_detection("train", 5, 64))
    file = write_coco(tmp_path, "val2017", shapes_for_detection("train", 5, 64))
    data = ["--data.name", "coco", "--data.root", str(tmp_path), "--data.test_split", "val2017"]
    trained = ["--data.train_split", "train2017", "--backbone.weights", str(resnet), "--output", str(tmp_path / "run")]
    train_main([*SMALL, *OVERFIT, *data, *trained])
    results = evaluate(tmp_path / "found", "--model", str(tmp_path / "run"), *data)
    assert results == record(tmp_path / "run")["results"]
    assert results["coco"]["AP"] > 1
    detections = tmp_path / "found" / "detections.json"
    assert {entry["category_id"] % 3 for entry in json.loads(detections.read_text())} == {0}
    command = [sys.executable, str(ROOT / "tools/score_detections.py"), "--annotations", str(file)]
    command += ["--detections", str(detections), "--metric", *METRICS, "--output", str(tmp_path / "scores.json")]
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads((tmp_path / "scores.json").read_text()) == approximately(results)
    # The same pictures as those of a test set, whose objects are not published.
    published = json.loads(file.read_text())
    del published["annotations"]
    (tmp_path / "annotations/image_info_test2017.json").write_text(json.dumps(published))
    (tmp_path / "val2017").rename(tmp_path / "test2017")
    data[-1] = "test2017"
    evaluate_main([*ALONE, "--model", str(tmp_path / "run"), *data, "--output", str(tmp_path / "unscored")])
    assert (tmp_path / "unscored" / "detections.json").read_bytes() == detections.read_bytes()
    assert not (tmp_path / "unscored" / "results.json").exists()
    assert (
        "nothing is scored here; if they are not published, name and pack detections.json as https://cocodataset.org"
        in capsys.readouterr().out
    )


def test_a_test_set_of_voc_without_annotations(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """VOC 2012's: its files are written for the server, and nothing is scored."""
    year, output = tmp_path / "VOC2012", tmp_path / "found"
    write_voc(year, "test", shapes_for_detection("train", 5, 64))
    arguments = [*ALONE, "--model", str(run), "--data.name", "voc", "--data.root", str(year)]
    arguments += ["--output", str(output)]
    evaluate_main(arguments)
    scored = snapshot(output)
    shutil.rmtree(year / "Annotations")
    capsys.readouterr()
    assert f"{output} holds results already" in refusal(capsys, evaluate_main, *arguments)
    evaluate_main([*arguments, "--overwrite"])
    text = capsys.readouterr().out
    assert "in 5 pictures of test\n" in text
    assert f"{year / 'Annotations'}: no annotations of test, so nothing is scored here" in text
    assert "http://host.robots.ox.ac.uk:8080" in text
    assert "mAP" not in text
    del scored["results.json"]  # numbers of before are not left beside files of now
    assert snapshot(output) == scored
    assert f"{output} holds results already" in refusal(capsys, evaluate_main, *arguments)
    assert "by --output" in refusal(capsys, evaluate_main, *arguments[:-2])


def test_results_are_not_replaced_unasked(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    evaluate(tmp_path / "found", "--model", str(run), *SHAPES)
    before = snapshot(tmp_path / "found")
    other = [*ALONE, "--model", str(run), *SHAPES, "--data.test_split", "val", "--output", str(tmp_path / "found")]
    line = refusal(capsys, evaluate_main, *other)
    assert str(tmp_path / "found") in line
    assert "--overwrite" in line
    assert snapshot(tmp_path / "found") == before
    evaluate_main([*other, "--overwrite"])
    assert (tmp_path / "found" / "results.json").read_bytes() != before["results.json"]
    # No file of the split before is left beside those of now; and such files alone are not replaced unasked, too.
    files = sorted((tmp_path / "found").glob("comp4*"))
    assert [file.name for file in files] == sorted(f"comp4_det_val_{name}.txt" for name in CLASS_NAMES)
    for name in ("results.json", "detections.json"):
        (tmp_path / "found" / name).unlink()
    assert f"holds results already ({files[0].name} and" in refusal(capsys, evaluate_main, *other)


def test_bad_input(run: Path, resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = snapshot(run)
    write_voc(tmp_path / "VOC2007", "test", shapes_for_detection("val", 8, 64), ["ape", *CLASS_NAMES[1:]])
    coco = tmp_path / "coco"
    file = write_coco(coco, "val2017", shapes_for_detection("val", 3, 64))
    odd, cut, others = (str(tmp_path / f"{name}.safetensors") for name in ("odd", "cut", "others"))
    other_ids = ["--data.name", "coco", "--data.root", str(coco), "--data.test_split", "val2017"]
    state, metadata = load_weights(run)
    save_weights(Path(others), state, replace(metadata, classes=["ape", *CLASS_NAMES[1:]]))
    metadata.detector["rpn"]["chanels"] = 3
    save_weights(Path(odd), state, metadata)
    Path(cut).write_bytes((run / "weights.safetensors").read_bytes()[:5000])
    voc = ["--data.name", "voc", "--data.root", str(tmp_path)]
    cases: list[tuple[list[str], str]] = [
        (["--model", str(resnet), *SHAPES], f"{resnet}: holds a classification network"),
        (["--model", *SHAPES], "--model"),
        (["--model", str(run), others, *SHAPES], "others.safetensors: does not go with"),
        (["--model", str(run), others, *SHAPES], "only it knows ape; only the other knows circle"),
        (["--model", str(run), str(resnet), *SHAPES], f"{resnet}: holds a classification network"),
        (["--model", str(run), *SHAPES, "--inference.scales", "[0, 64]"], "inference.scales: 0 is no"),
        (["--model", str(run), *SHAPES, "--inference.scales", "[64, 1000000]"], "inference.scales: 1000000 is no"),
        (["--model", str(run), *SHAPES, "--inference.scales", "[64, 32]"], "inference.scales [64, 32]: give them in"),
        (["--model", str(run), *SHAPES, "--inference.scales", "[small]"], "inference.scales"),
        (["--model", str(run), *SHAPES, "--inference.merge", "mean"], "inference.merge"),
        (["--model", str(run), *SHAPES, "--inference.region_side", "0"], "inference.region_side 0"),
        (["--model", str(run), *SHAPES, "--inference.merge", "scores"], "inference.merge scores: is about scales"),
        (["--model", "/nowhere", *SHAPES], "/nowhere"),
        (["--model", odd, *SHAPES], "odd.safetensors"),
        (["--model", cut, *SHAPES], "cut.safetensors"),
        (["--model", str(run), "--data.name", "voc"], "data.root"),
        (["--model", str(run), *voc, "--data.test_split", "nothing"], "nothing"),
        (["--model", str(run), *voc, "--data.test_split", "test"], "ape"),
        (["--model", str(run), *other_ids], f"{file}: category 'circle' has the id"),
        (["--model", str(run), *SHAPES, "--workers", "-1"], "workers"),
        (["--model", str(run), *SHAPES, "--metric", "voc10"], "voc10"),
        (["--model", str(run), *SHAPES, "--data.test_size", "0"], "0"),
        (["--model", str(run), *SHAPES, "--output", "/dev/null/results"], "/dev/null/results"),
    ]
    for arguments, culprit in cases:
        output = ["--output", str(tmp_path / "none")]
        assert culprit in refusal(capsys, evaluate_main, "--device", "cpu", *output, *arguments), arguments
    assert not (tmp_path / "none").exists()
    file.write_text(file.read_text().replace('"circle"', '"disc"'))
    assert "circle" in refusal(capsys, evaluate_main, "--model", str(run), *other_ids)
    assert snapshot(run) == before
    assert not torch.are_deterministic_algorithms_enabled()
