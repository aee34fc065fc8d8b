"""Appendix B through the commands: context is trained and comes with the weights; tests by all options; ensembles."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detector_commands import record, train, write_backbone
from PIL import Image

from backbones.weights import load_weights
from detection.data.shapes import shapes_for_detection
from detection.detect import main as detect_main
from detection.test import main as evaluate_main

ALL = ["--inference.refine", "true", "--inference.vote", "true", "--inference.scales", "[32, 64, 96]"]
ALL += ["--inference.region_side", "32"]
SHAPES = ["--data.name", "shapes", "--data.test_split", "train", "--data.test_size", "5"]
OVERFIT = [
    "--data.train_size",
    "5",
    "--data.test_split",
    "train",
    "--train.steps",
    "30",
    "--train.checkpoint_every",
    "15",
]
OVERFIT += ["--roi.context", "true", *ALL]


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("resnet") / "resnet.safetensors", width=4)


@pytest.fixture(scope="module")
def run(resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With context, tested by refinement, voting, and a pyramid."""
    output = tmp_path_factory.mktemp("run") / "run"
    assert train(output, resnet, *OVERFIT)["results"]["coco"]["AP50"] > 1
    return output


@pytest.fixture(scope="module")
def vgg_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On another backbone, for larger pictures, without context."""
    folder = tmp_path_factory.mktemp("vgg")
    weights = write_backbone(folder / "vgg.safetensors", "vgg16_bn", width=4)
    options = ["--backbone.name", "vgg16_bn", "--data.shorter_side", "80", "--data.longest_side", "120"]
    train(folder / "run", weights, *options, "--data.train_size", "4", "--data.test_size", "1")
    return folder / "run"


def evaluate(output: Path, *arguments: str) -> dict[str, Any]:
    evaluate_main(["--device", "cpu", "--workers", "0", *SHAPES, "--output", str(output), *arguments])
    return json.loads((output / "results.json").read_text())


def test_a_run_is_tested_as_its_configuration_says(run: Path, tmp_path: Path) -> None:
    _, metadata = load_weights(run)
    assert metadata.detector["roi"]["context"] is True
    assert evaluate(tmp_path / "all", "--model", str(run), *ALL) == record(run)["results"]
    plain = evaluate(tmp_path / "plain", "--model", str(run))
    assert plain != record(run)["results"]


def test_an_ensemble_of_different_backbones_and_sizes(run: Path, vgg_run: Path, tmp_path: Path) -> None:
    together = evaluate(tmp_path / "both", "--model", str(run), str(vgg_run))
    alone = evaluate(tmp_path / "one", "--model", str(run))
    assert together != alone
    twice = evaluate(tmp_path / "twice", "--model", str(run), str(run))
    for name in ("AP", "AP50"):
        assert twice["coco"][name] == pytest.approx(alone["coco"][name], abs=0.5)
    evaluate(tmp_path / "all", "--model", str(run), str(vgg_run), *ALL)
    files = [(tmp_path / name / "detections.json").read_bytes() for name in ("both", "one", "all")]
    assert len(set(files)) == 3


def test_detect_takes_ensembles_and_options(run: Path, vgg_run: Path, tmp_path: Path) -> None:
    image = tmp_path / "scene.png"
    Image.fromarray(shapes_for_detection("train", 1, 64).load_image(0).permute(1, 2, 0).numpy()).save(image)

    def found(name: str, *arguments: str) -> list[dict[str, Any]]:
        output = tmp_path / name
        detect_main(["--images", str(image), "--output", str(output), "--device", "cpu", *arguments])
        (row,) = json.loads((output / "detections.json").read_text())
        return row["objects"]

    plain = found("plain", "--model", str(run))
    evaluate(tmp_path / "files", "--model", str(run))
    files = json.loads((tmp_path / "files/detections.json").read_text())
    assert sorted(each["score"] for each in plain) == sorted(each["score"] for each in files if each["image_id"] == 1)
    assert found("all", "--model", str(run), str(vgg_run), *ALL) != plain
    assert np.asarray(Image.open(tmp_path / "all/scene.png")).shape == (64, 64, 3)
