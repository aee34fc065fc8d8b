"""ILSVRC's DET through the commands: trained, tested by its metric, and a test set whose objects are not published."""

import json
from pathlib import Path

import pytest
import yaml
from detector_commands import record, refusal, train, write_backbone
from PIL import Image

from backbones.data.shapes import CLASS_NAMES
from detection.compare.command import main as compare_main
from detection.data.shapes import shapes_for_detection
from detection.test import main as evaluate_main

WNIDS = [f"n0000000{k}" for k in range(len(CLASS_NAMES))]


def write_det(root: Path, kind: str, name: str, count: int, annotated: bool = True) -> None:
    """Writes built-in pictures as a split in DET's layout."""
    dataset = shapes_for_detection("train", count, 64)
    pictures, boxes, lists = (root / part / "DET" for part in ("Data", "Annotations", "ImageSets"))
    for folder in (pictures / kind, lists) + ((boxes / kind,) if annotated else ()):
        folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(dataset.load_image(i).permute(1, 2, 0).numpy()).save(
            pictures / kind / f"{name}_{i}.JPEG", quality=95
        )
        target = dataset.target(i)
        objects = "".join(
            f"<object><name>{WNIDS[label - 1]}</name><bndbox><xmin>{x1:.0f}</xmin><ymin>{y1:.0f}</ymin>"
            f"<xmax>{x2 - 1:.0f}</xmax><ymax>{y2 - 1:.0f}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True)
        )
        if annotated:
            (boxes / kind / f"{name}_{i}.xml").write_text(f"<annotation>{objects}</annotation>")
    (lists / f"{name}.txt").write_text("".join(f"{name}_{i} {i + 1}\n" for i in range(count)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "ILSVRC"
    write_det(root, "train", "train", 8)
    write_det(root, "val", "val", 4)
    write_det(root, "test", "test", 2, annotated=False)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    options = [
        "--data.name",
        "det",
        "--data.root",
        str(data),
        "--data.train_split",
        "train",
        "--data.test_split",
        "val",
    ]
    train(folder / "run", write_backbone(folder / "resnet.safetensors", width=4), *options)
    return folder / "run"


def test_a_run_is_tested_by_dets_metric_too(run: Path, data: Path, tmp_path: Path) -> None:
    results = record(run)["results"]
    assert set(results) == {"coco", "voc07", "voc12", "det"}
    options = ["--model", str(run), "--data.name", "det", "--data.root", str(data.parent), "--data.test_split", "val"]
    options += ["--device", "cpu", "--workers", "0"]
    evaluate_main([*options, "--output", str(tmp_path / "found")])
    assert json.loads((tmp_path / "found/results.json").read_text()) == results
    evaluate_main([*options, "--output", str(tmp_path / "one"), "--metric", "det"])
    assert json.loads((tmp_path / "one/results.json").read_text()) == {"det": results["det"]}


def test_a_comparison_by_dets_metric_has_its_classes(run: Path, data: Path, tmp_path: Path) -> None:
    config = {"data": {"name": "det", "root": str(data), "test_split": "val"}, "metric": ["det.mAP"], "workers": 0}
    rows = [{"name": "single", "models": ["first"]}]
    config |= {"models": {"first": str(run)}, "rows": rows, "output": str(tmp_path / "out"), "device": "cpu"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    compare_main(["--config", str(tmp_path / "config.yaml")])
    table = (tmp_path / "out/table.md").read_text()
    assert "| DET AP % " in table
    assert all(f"\n| {wnid} " in table for wnid in WNIDS)


def test_objects_that_are_not_published(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--model", str(run), "--data.name", "det", "--data.root", str(data), "--data.test_split", "test"]
    options += ["--device", "cpu", "--workers", "0"]
    said = refusal(capsys, evaluate_main, *options)
    assert f"{data / 'Annotations/DET'}: no annotations of test to score with" in said
    evaluate_main([*options, "--output", str(tmp_path / "found")])
    said = capsys.readouterr().out
    assert "make the file for ILSVRC's server of detections.json" in said
    for part in ("number in test.txt", "number in the devkit's meta_det", "bbox is x, y, width, height"):
        assert part in said
    assert not (tmp_path / "found/results.json").exists()
    assert (tmp_path / "found/detections.json").exists()
