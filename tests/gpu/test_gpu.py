"""Training on a GPU: the losses of a CPU, in float32 and bfloat16, and a resumed run ends in the same bits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.config import ClassificationData, ModelConfig, OptimizerConfig, PretrainConfig
from backbones.data.shapes import CLASS_NAMES
from backbones.engine import records
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import ScheduleOptions
from backbones.errors import ConfigError
from backbones.models import get_model
from backbones.train import pretrain
from backbones.weights import WeightsMetadata, load_weights, save_weights
from detection.config import AnchorConfig, BackboneConfig, DetectionData, DetectorConfig
from detection.models import RoIOptions, RPNOptions
from detection.train import train_detector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no usable GPU"),
]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A classifier with new weights, and batch norm's statistics of noise."""
    torch.manual_seed(0)
    network = get_model("resnet18", len(CLASS_NAMES), width=16)
    with torch.no_grad():
        for _ in range(30):
            network(torch.randn(8, 3, 64, 64))
    metadata = WeightsMetadata("classification", "resnet18", {"width": 16}, CLASS_NAMES, [127.5] * 3, [64.0] * 3, 64)
    save_weights(tmp_path / "resnet18.safetensors", network.state_dict(), metadata)
    return tmp_path / "resnet18.safetensors"


def classifier(output: Path, **options: Any) -> PretrainConfig:
    return PretrainConfig(
        model=ModelConfig("resnet18", {"width": 16}),
        data=ClassificationData(
            name="shapes",
            input_size=64,
            test_resize=None,
            augmentation="flip",
            mean=[127.5] * 3,
            std=[64.0] * 3,
            train_size=64,
            test_size=8,
        ),
        train=TrainOptions(steps=3, batch_size=16, checkpoint_every=2, log_every=1, workers=0),
        optimizer=OptimizerConfig(lr=0.005),
        schedule=ScheduleOptions(name="constant"),
        output=str(output),
        **options,
    )


def detector(
    output: Path, weights: Path, *, pooling: Any = "roi_align", steps: int = 3, **options: Any
) -> DetectorConfig:
    return DetectorConfig(
        backbone=BackboneConfig(weights=str(weights), freeze_stages=["conv1"]),
        data=DetectionData(
            name="shapes",
            train_split="train",
            test_split="val",
            shorter_side=128,
            longest_side=128,
            train_size=16,
            test_size=4,
        ),
        anchors=AnchorConfig(scales=[16.0, 32.0, 64.0]),
        rpn=RPNOptions(channels=64, min_size=4, pre_nms_train=300, post_nms_train=100, post_nms_test=50),
        roi=RoIOptions(pooling=pooling, pool_size=7, rois_per_image=32, background_iou_low=0.0),
        train=TrainOptions(steps=steps, batch_size=4, checkpoint_every=2, log_every=1, workers=0),
        optimizer=OptimizerConfig(lr=0.005),
        schedule=ScheduleOptions(name="constant"),
        output=str(output),
        **options,
    )


def losses(output: Path) -> list[float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


TOLERANCES = [("fp32", 2e-3), ("bf16", 5e-2)]


@pytest.mark.parametrize(("precision", "tolerance"), TOLERANCES)
def test_a_classifiers_losses_are_those_of_the_cpu(precision: Any, tolerance: float, tmp_path: Path) -> None:
    pretrain(classifier(tmp_path / "cpu", device="cpu"))
    pretrain(classifier(tmp_path / "gpu", device="cuda", precision=precision))
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=tolerance)
    assert len(losses(tmp_path / "gpu")) == 3


@pytest.mark.parametrize("pooling", ["roi_align", "roi_pool"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 3e-2), ("bf16", 1e-1)])
def test_a_detectors_losses_are_those_of_the_cpu(
    precision: Any, tolerance: float, pooling: str, weights: Path, tmp_path: Path
) -> None:
    train_detector(detector(tmp_path / "cpu", weights, pooling=pooling, device="cpu"))
    train_detector(detector(tmp_path / "gpu", weights, pooling=pooling, device="cuda", precision=precision))
    cpu, gpu = losses(tmp_path / "cpu"), losses(tmp_path / "gpu")
    # A seed draws other anchors and regions on a GPU (test_detector_gpu.py trains on all, and finds the same losses).
    assert gpu == pytest.approx(cpu, rel=tolerance)


@pytest.mark.parametrize("kind", ["classifier", "recipe", "joint", "alternating"])
def test_an_interrupted_run_resumes_to_the_same_bits(
    kind: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(output: Path, **options: Any) -> None:
        options |= {"device": "cuda", "deterministic": True}
        if kind == "classifier":
            pretrain(classifier(output, **options))
        elif kind == "recipe":  # all that has a state of its own
            config = classifier(output, exact_bn=True, label_smoothing=0.1, **options)
            plateau = ScheduleOptions(name="plateau", plateau_window=2, plateau_patience=1, plateau_improvement=50)
            pretrain(replace(config, train=replace(config.train, steps=5, ema_decay=0.9), schedule=plateau))
        else:
            train_detector(detector(output, weights, steps=6, scheme=kind, **options))

    run(tmp_path / "whole")
    run(tmp_path / "again")
    save = records.save_checkpoint

    def interrupt_after_it(*given: Any) -> None:
        save(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "save_checkpoint", interrupt_after_it)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    run(tmp_path / "cut", resume=True)
    whole, again, cut = (load_weights(tmp_path / name)[0] for name in ("whole", "again", "cut"))
    for name, tensor in whole.items():
        assert torch.equal(again[name], tensor), f"{name}: not deterministic"
        assert torch.equal(cut[name], tensor), f"{name}: not resumed exactly"


def test_roi_pooling_is_refused_where_bits_are_promised(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="roi_align"):
        train_detector(detector(tmp_path / "run", weights, pooling="roi_pool", device="cuda", deterministic=True))
    assert not (tmp_path / "run").exists()
