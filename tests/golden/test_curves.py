"""The losses of two short trainings in float64, as they were: a refactoring must not change them.

Where a change is meant to, write them anew with `python tests/golden/test_curves.py` and say why in the commit.
"""

import json
from pathlib import Path

import pytest

from backbones.config import ClassificationData, ModelConfig, OptimizerConfig, PretrainConfig
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import ScheduleOptions
from backbones.train import pretrain
from detection.config import AnchorConfig, BackboneConfig, DetectionData, DetectorConfig
from detection.models import RoIOptions, RPNOptions
from detection.train import train_detector

CURVES = Path(__file__).with_name("curves.json")
TRAIN = {"checkpoint_every": 12, "log_every": 1, "workers": 0}


def classifier_losses(folder: Path) -> list[float]:
    pretrain(
        PretrainConfig(
            model=ModelConfig("resnet18", {"width": 4}),
            data=ClassificationData(
                "shapes",
                input_size=64,
                test_resize=72,
                scale_range=(72, 96),
                mean=[127.5] * 3,
                std=[64.0] * 3,
                train_size=40,
                test_size=6,
            ),
            train=TrainOptions(steps=12, batch_size=32, accumulate=2, **TRAIN),
            optimizer=OptimizerConfig(lr=0.005),
            schedule=ScheduleOptions(milestones=[8], warmup_steps=3),
            output=str(folder / "classifier"),
            device="cpu",
            precision="fp64",
        )
    )
    return losses(folder / "classifier")


def detector_losses(folder: Path) -> list[float]:
    train_detector(
        DetectorConfig(
            backbone=BackboneConfig(weights=str(folder / "classifier"), freeze_stages=["conv1"]),
            data=DetectionData(
                "shapes",
                train_split="train",
                shorter_side=80,
                longest_side=80,
                like_shapes=1,
                train_size=20,
                test_size=3,
            ),
            anchors=AnchorConfig(scales=[16.0, 32.0]),
            rpn=RPNOptions(channels=8, min_size=4, post_nms_train=40, post_nms_test=10),
            roi=RoIOptions(pooling="roi_align", pool_size=7, rois_per_image=16, background_iou_low=0),
            train=TrainOptions(steps=12, batch_size=2, **TRAIN),
            optimizer=OptimizerConfig(lr=0.002),
            output=str(folder / "detector"),
            device="cpu",
            precision="fp64",
        )
    )
    return losses(folder / "detector")


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


def curves(folder: Path) -> dict[str, list[float]]:
    return {"classifier": classifier_losses(folder), "detector": detector_losses(folder)}


def test_losses_are_those_of_before(tmp_path):
    expected = json.loads(CURVES.read_text())
    measured = curves(tmp_path)
    # Shapes are painted and resized in whole numbers; what differs between machines is the order of float64 sums.
    for name in expected:
        assert measured[name] == pytest.approx(expected[name], rel=1e-6), name


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        CURVES.write_text(json.dumps(curves(Path(folder)), indent=1) + "\n")
