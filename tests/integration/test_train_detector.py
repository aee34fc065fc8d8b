"""The command `train_detector` from start to end: what it leaves, what it keeps, and that a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detector_commands import (
    ROOT,
    SMALL,
    record,
    refusal,
    stopped_by_its_first_checkpoint,
    train,
    write_backbone,
    write_voc,
)
from PIL import Image

from backbones.weights import load_weights, save_weights
from detection.data.shapes import shapes_for_detection
from detection.evaluate.coco import COCO_METRICS
from detection.test import main as evaluate_main
from detection.train import main as train_main
from detection.weights import load_detector

VGG = ("--backbone.name", "vgg16")
LOSSES = {"loss", "rpn_objectness", "rpn_box", "classification", "box"}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("resnet") / "resnet18.safetensors", width=4)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("vgg") / "vgg16.safetensors", "vgg16", width=4)


@pytest.fixture(scope="module")
def run(resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 steps."""
    output = tmp_path_factory.mktemp("run") / "run"
    train(output, resnet, "--train.evaluate_every", "4")
    return output


def metrics(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def test_a_run_leaves_all_that_is_promised(run: Path, resnet: Path) -> None:
    written = record(run)
    assert written["status"] == "finished"
    assert written["results"].keys() == {"coco", "voc07", "voc12"}
    assert list(written["results"]["coco"]) == [*COCO_METRICS, "per_class"]
    assert written["results"]["coco"]["APl"] is None  # no object is that large here
    assert written["config"]["backbone"]["weights"] == str(resnet)
    lines = metrics(run)
    assert [(line["step"], line["split"]) for line in lines] == [
        *[(2, "train"), (3, "train"), (4, "train"), (4, "test"), (6, "train"), (6, "test")]
    ]
    assert lines[0].keys() == {"step", "split", "lr"} | LOSSES
    assert lines[0]["loss"] == pytest.approx(sum(lines[0][name] for name in LOSSES - {"loss"}))
    assert lines[-1]["voc07_mAP"] == written["results"]["voc07"]["mAP"]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step_00000004.pt", "step_00000006.pt"]
    detector, metadata = load_detector(run)  # no config
    assert (metadata.task, metadata.architecture, metadata.options) == ("detection", "resnet18", {"width": 4})
    assert (metadata.mean, metadata.std, metadata.classes[0]) == ([127.5] * 3, [64.0] * 3, "circle")
    assert detector.rpn.options.channels == 16
    assert detector.roi_heads.pool_size == 7


def test_frozen_stages_and_batch_norm_stay_as_the_backbone_has_them(run: Path, resnet: Path) -> None:
    before, _ = load_weights(resnet)
    after, metadata = load_weights(run)
    assert metadata.detector["freeze_stages"] == ["conv1"]
    kept, changed = set(), set()
    for name, tensor in after.items():
        if name.startswith("backbone."):
            same = torch.equal(tensor, before[name.removeprefix("backbone.")])
            (kept if same else changed).add(name.removeprefix("backbone."))
    norms = {n for n in before if ".bn" in n or n.startswith("bn1") or ".downsample.1." in n}
    norms -= {n for n in norms if n.endswith("num_batches_tracked")}
    assert len(norms) == 4 * 20
    assert kept == norms | {"conv1.weight"}
    assert len(changed) == 19  # every other convolution of a ResNet-18


def test_two_stages_frozen_as_in_the_papers_configs(resnet: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", resnet, "--backbone.freeze_stages", "[conv1, conv2]", "--train.steps", "2")
    before, after = load_weights(resnet)[0], load_weights(tmp_path / "run")[0]
    for name in ("layer1.0.conv1.weight", "layer1.1.conv2.weight", "conv1.weight"):
        assert torch.equal(before[name], after[f"backbone.{name}"])
    assert not torch.equal(before["layer2.0.conv1.weight"], after["backbone.layer2.0.conv1.weight"])


def test_a_network_of_bgr_pictures_becomes_one_of_rgb(resnet: Path, tmp_path: Path) -> None:
    """As Caffe's are: the same network with its input's channels turned around trains the same detector."""
    state, metadata = load_weights(resnet)
    metadata.mean, metadata.std = [100.0, 120.0, 140.0], [60.0, 64.0, 68.0]
    save_weights(tmp_path / "rgb.safetensors", state, metadata)
    state["conv1.weight"] = state["conv1.weight"].flip(1)
    blue = replace(metadata, color_order="BGR", mean=metadata.mean[::-1], std=metadata.std[::-1])
    save_weights(tmp_path / "bgr.safetensors", state, blue)
    for name in ("rgb", "bgr"):
        train(tmp_path / name, tmp_path / f"{name}.safetensors", "--train.steps", "1")
    assert (tmp_path / "rgb/weights.safetensors").read_bytes() == (tmp_path / "bgr/weights.safetensors").read_bytes()


def test_a_detector_from_nothing_trains_live_batch_norm(tmp_path: Path) -> None:
    random = ("--backbone.norm", "batch", "--backbone.freeze_stages", "[]", "--train.steps", "2")
    train_main([*SMALL, *random, "--output", str(tmp_path / "run")])
    state, metadata = load_weights(tmp_path / "run")
    assert state["backbone.bn1.num_batches_tracked"] == 2
    assert metadata.detector["norm"] == "batch"


def test_a_killed_run_resumes_to_the_same_bits(resnet: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "--backbone.weights", str(resnet), "--train.steps", "30", "--train.evaluate_every", "9"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = [sys.executable, str(ROOT / "tools/train_detector.py"), *arguments, "--output", str(cut)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (cut / "checkpoints" / "step_00000009.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert record(cut)["status"] == "running"
    assert not (cut / "weights.safetensors").exists()

    train_main([*arguments, "--output", str(whole)])
    train_main([*arguments, "--output", str(cut), "--resume"])
    assert (whole / "weights.safetensors").read_bytes() == (cut / "weights.safetensors").read_bytes()
    assert record(whole)["results"] == record(cut)["results"]
    assert record(cut)["status"] == "finished"
    assert [line for line in metrics(cut) if line["split"] == "test"] == [
        line for line in metrics(whole) if line["split"] == "test"
    ]


def test_an_interrupted_run_with_dropout_resumes_to_the_same_bits(vgg: Path, tmp_path: Path) -> None:
    arguments = (*VGG, "--train.workers", "2", "--deterministic")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole, vgg, *arguments)
    with stopped_by_its_first_checkpoint():
        train(cut, vgg, *arguments)
    assert record(cut)["status"] == "interrupted"
    train(cut, vgg, *arguments, "--resume")
    assert (whole / "weights.safetensors").read_bytes() == (cut / "weights.safetensors").read_bytes()
    assert record(whole)["results"] == record(cut)["results"]
    torch.use_deterministic_algorithms(False)

    # Dropout was at work: the same run without it ends elsewhere.
    train(tmp_path / "none", _without_dropout(vgg, tmp_path), *VGG)
    some, none = (load_weights(path)[0]["backbone.classifier.3.weight"] for path in (whole, tmp_path / "none"))
    assert not torch.equal(some, none)


def _without_dropout(vgg: Path, tmp_path: Path) -> Path:
    state, metadata = load_weights(vgg)
    metadata.options["dropout"] = 0
    save_weights(tmp_path / "dry.safetensors", state, metadata)
    return tmp_path / "dry.safetensors"


def test_data_with_pictures_of_every_kind(resnet: Path, tmp_path: Path) -> None:
    """A panorama, a picture a pixel high, grey and CMYK files, one without objects."""
    year = tmp_path / "VOC2007"
    write_voc(year, "trainval", shapes_for_detection("train", 8, 64))
    for number, (width, height, mode) in enumerate(
        [(4000, 50, "RGB"), (300, 1, "RGB"), (40, 60, "L"), (60, 40, "CMYK")]
    ):
        _add_picture(year, "trainval", f"odd{number}", width, height, mode)
    root = ("--data.name", "voc", "--data.root", str(tmp_path), "--data.test_split", "trainval")
    steps = ("--data.train_split", "trainval", "--train.steps", "4", "--train.batch_size", "3")
    written = train(tmp_path / "run", resnet, *root, *steps)
    assert written["status"] == "finished"
    evaluate = ["--model", str(tmp_path / "run"), "--device", "cpu", "--workers", "0", *root]
    evaluate_main([*evaluate, "--output", str(tmp_path / "results")])
    for entry in json.loads((tmp_path / "results" / "detections.json").read_text()):
        if entry["image_id"] == "odd0":
            x, y, width, height = entry["bbox"]
            assert 0 <= x <= x + width <= 4000
            assert 0 <= y <= y + height <= 50


def _add_picture(year: Path, split: str, identity: str, width: int, height: int, mode: str) -> None:
    """A picture with one object that covers it, none where it is a pixel high."""
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(year / "JPEGImages" / f"{identity}.jpg")
    box = f"<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{width}</xmax><ymax>{height}</ymax></bndbox>"
    thing = f"<object><name>star</name>{box}</object>" if height > 1 else ""
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    (year / "Annotations" / f"{identity}.xml").write_text(f"<annotation>{size}{thing}</annotation>")
    with (year / "ImageSets" / "Main" / f"{split}.txt").open("a") as file:
        file.write(f"{identity}\n")


@pytest.mark.data
def test_real_pictures_of_coco(data_pack: Any, resnet: Path, tmp_path: Path) -> None:
    root = data_pack("coco_subset")
    data = ["--data.name", "coco", "--data.root", str(root), "--data.test_split", "val2017"]
    repair = ["--data.bad_boxes", "repair"]
    train(tmp_path / "run", resnet, *data, *repair, "--data.train_split", "train2017", "--train.steps", "2")
    model = ["--model", str(tmp_path / "run"), "--device", "cpu", "--workers", "0"]
    evaluate_main([*model, *data, *repair, "--output", str(tmp_path / "results")])
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results == record(tmp_path / "run")["results"]
    assert results["coco"]["APl"] is not None


@pytest.mark.data
def test_real_pictures_of_blood_cells(
    data_pack: Any, resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = data_pack("bccd")
    data = ["--data.name", "voc", "--data.root", str(root / "VOCdevkit"), "--data.test_split", "test"]
    options = [*SMALL, *data, "--data.train_split", "trainval", "--train.steps", "2"]
    options += ["--backbone.weights", str(resnet), "--output", str(tmp_path / "run")]
    line = refusal(capsys, train_main, *options)
    assert "BloodImage_003" in line
    assert "repair" in line
    train_main([*options, "--data.bad_boxes", "repair"])
    assert "2 dropped" in capsys.readouterr().out
    model = ["--model", str(tmp_path / "run"), "--device", "cpu", "--workers", "0"]
    evaluate_main([*model, *data, "--data.bad_boxes", "repair", "--output", str(tmp_path / "results")])
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results == record(tmp_path / "run")["results"]
    assert results["voc07"]["per_class"].keys() == {"Platelets", "RBC", "WBC"}
