"""Learns 20 real pictures by heart: what a detector can't do where targets, losses or boxes are wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from detector_commands import ROOT, record

from backbones.train import main as pretrain_main
from detection.train import main as train_main

PICTURES = 20
SMALLEST = 48  # pixels: the shorter side of the smallest object


def choose_pictures(source: Path, target: Path) -> int:
    """Writes a COCO layout of the first pictures that hold nothing small and no crowd; returns how many objects."""
    data = json.loads((source / "annotations/instances_train2017.json").read_text())
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in data["images"]}
    for each in data["annotations"]:
        objects[each["image_id"]].append(each)

    def is_large(each: dict[str, Any]) -> bool:
        return not each["iscrowd"] and min(each["bbox"][2:]) >= SMALLEST

    chosen = [i for i in data["images"] if objects[i["id"]] and all(map(is_large, objects[i["id"]]))][:PICTURES]
    assert len(chosen) == PICTURES
    data["images"] = chosen
    data["annotations"] = [each for image in chosen for each in objects[image["id"]]]
    (target / "annotations").mkdir(parents=True)
    (target / "annotations/instances_train2017.json").write_text(json.dumps(data))
    (target / "train2017").symlink_to(source / "train2017")
    return len(data["annotations"])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("kind", ["resnet", "vgg"])
def test_learns_pictures_by_heart(kind: str, data_pack: Any, tmp_path: Path) -> None:
    """Some 6 minutes each, on one core."""
    objects = choose_pictures(data_pack("coco_subset"), tmp_path / "coco")
    assert objects > PICTURES
    classifier, detector = tmp_path / "classifier", tmp_path / "detector"
    pretrain_main(["--config", str(ROOT / f"configs/shapes/classify_{kind}.yaml"), "--output", str(classifier)])
    config = ["--config", str(ROOT / f"configs/coco_subset/overfit_{kind}.yaml"), "--backbone.weights", str(classifier)]
    train_main([*config, "--data.root", str(tmp_path / "coco"), "--output", str(detector), "--device", "cpu"])
    assert record(detector)["results"]["coco"]["AP50"] >= 90
