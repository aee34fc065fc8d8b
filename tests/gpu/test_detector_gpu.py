"""A detector on a GPU: the losses and detections of the CPU, compiled layers, and what the host waits for."""

import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import nms

from backbones.config import OptimizerConfig
from backbones.data.shapes import CLASS_NAMES
from backbones.engine.distributed import World
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import ScheduleOptions
from backbones.models import get_model
from backbones.weights import WeightsMetadata, save_weights
from detection import get_detector
from detection.config import AnchorConfig, BackboneConfig, DetectionData, DetectorConfig
from detection.data.samples import make_sample
from detection.data.shapes import shapes_for_detection
from detection.inference import detect
from detection.inference.detect import detect_in_dataset
from detection.inference.ensemble import Ensemble, Member
from detection.inference.options import InferenceOptions
from detection.models import FasterRCNN, RoIOptions, RPNOptions
from detection.structures import Sample
from detection.train import train_detector
from detection.training import detection_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no usable GPU"),
]

GPU = torch.device("cuda")
EVERY = 100_000  # more than there are: nothing is left to chance, whose numbers differ from device to device


def detector(**roi: Any) -> FasterRCNN:
    """In float64, in which rounding changes no choice; its scores are far from each other."""
    torch.manual_seed(0)
    network = get_detector(
        "resnet18",
        len(CLASS_NAMES),
        backbone_options={"width": 8},
        norm="batch",
        freeze_stages=("conv1",),
        anchor_scales=(16, 32, 64),
        rpn=RPNOptions(
            channels=16,
            anchors_per_image=EVERY,
            positive_fraction=1.0,
            min_size=4,
            pre_nms_train=300,
            post_nms_train=60,
            post_nms_test=40,
        ),
        roi=RoIOptions(**{"rois_per_image": EVERY, "foreground_fraction": 1.0, "background_iou_low": 0.0} | roi),
    )
    for layer in (network.rpn.objectness, network.roi_heads.classification):
        nn.init.normal_(layer.weight, std=0.5)
    return network.double()


def on_gpu(network: FasterRCNN) -> FasterRCNN:
    moved = copy.deepcopy(network).to(GPU).to(memory_format=torch.channels_last)
    assert moved.rpn.conv.weight.is_contiguous(memory_format=torch.channels_last)
    return moved


def samples(count: int = 3) -> list[Sample]:
    """Pictures of two sizes."""
    dataset = shapes_for_detection("train", count, 96)
    return [make_sample(dataset, i, shorter=64 if i % 2 else 96, longest=96, seed=i) for i in range(count)]


@pytest.mark.parametrize("pooling", ["roi_align", "roi_pool"])
@pytest.mark.parametrize("context", [False, True])
def test_losses_and_gradients_are_those_of_the_cpu(pooling: str, context: bool) -> None:
    network = detector(pooling=pooling, context=context).train()
    moved, found = on_gpu(network), []
    for model, device in ((network, torch.device("cpu")), (moved, GPU)):
        loss, parts = detection_loss(model, [sample.to(device) for sample in samples()])
        loss.backward()
        found.append({name: value.detach().cpu() for name, value in parts.items()})
        found[-1] |= {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    assert len(found[0]) > 10
    torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("workers", [0, 2])
def test_detections_of_a_data_set_are_those_of_the_cpu(workers: int) -> None:
    """Pictures go there ahead, detections come back behind: none may be another's, nor be read too soon."""
    network, dataset = detector().eval(), shapes_for_detection("val", 25, 96)
    found = []
    for model, device in ((network, torch.device("cpu")), (on_gpu(network), GPU)):
        ensemble = Ensemble([Member(model, 64, 96)], InferenceOptions())
        world = World(0, 1, device)
        found.append(detect_in_dataset(ensemble, dataset, world=world, workers=workers if device == GPU else 0))
    assert sum(map(len, found[0])) > 25
    for cpu, gpu in zip(*found, strict=True):
        assert {t.device.type for t in (gpu.boxes, gpu.scores, gpu.labels)} == {"cpu"}
        assert not gpu.scores.is_pinned()
        assert torch.equal(gpu.labels, cpu.labels)
        torch.testing.assert_close((gpu.boxes, gpu.scores), (cpu.boxes, cpu.scores), rtol=1e-6, atol=1e-6)


def test_pictures_ahead_and_detections_behind_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = Ensemble([Member(on_gpu(detector().float()).eval(), 64, 96)], InferenceOptions())
    dataset, world = shapes_for_detection("val", 25, 96), World(0, 1, GPU)
    overlapped = detect_in_dataset(ensemble, dataset, world=world, workers=2)
    monkeypatch.setattr(detect, "prefetch", lambda batches, device: batches)
    monkeypatch.setattr(detect, "fetch", lambda results, device: ((k, [t.cpu() for t in ts]) for k, ts in results))
    one_by_one = detect_in_dataset(ensemble, dataset, world=world)
    for first, second in zip(overlapped, one_by_one, strict=True):
        for a, b in ((first.boxes, second.boxes), (first.scores, second.scores), (first.labels, second.labels)):
            assert torch.equal(a, b)


def waits(work: Callable[[], Any]) -> int:
    """How often PyTorch says that the host waits for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing CUDA operation" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 3])
def test_a_step_waits_only_for_each_picture_s_non_maximum_suppression(count: int, precision: torch.dtype) -> None:
    network = on_gpu(detector().float()).train()
    batch = [sample.to(GPU) for sample in samples(count)]
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            loss, _ = detection_loss(network, batch)
        loss.backward()
        optimizer.step()

    boxes = torch.tensor([[0.0, 0, 9, 9], [1, 1, 9, 9]], device=GPU)
    scores = torch.rand(2, device=GPU)
    step()  # libraries start
    torch.cuda.synchronize()
    of_one = waits(lambda: nms(boxes, scores, 0.5))
    assert of_one >= 1  # else this could not tell
    assert waits(step) == count * of_one


def test_a_picture_waits_for_its_two_suppressions_and_the_number_of_its_boxes() -> None:
    ensemble = Ensemble([Member(on_gpu(detector().float()).eval(), 96, 96)], InferenceOptions())
    image = samples(1)[0].image.to(GPU)

    def look() -> None:
        assert len(ensemble({ensemble.views[0]: image}))

    boxes = torch.tensor([[0.0, 0, 9, 9], [1, 1, 9, 9]], device=GPU)
    look()
    torch.cuda.synchronize()
    of_one = waits(lambda: nms(boxes, torch.rand(2, device=GPU), 0.5))
    of_nonzero = waits(lambda: boxes.nonzero())
    of_a_number = waits(lambda: torch.tensor(1).to(boxes))  # torchvision makes one, for its NMS of all classes
    assert waits(look) <= 2 * of_one + of_nonzero + of_a_number


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


def config(output: Path, weights: Path) -> DetectorConfig:
    return DetectorConfig(
        backbone=BackboneConfig(weights=str(weights), freeze_stages=["conv1"]),
        data=DetectionData(
            name="shapes",
            train_split="train",
            test_split="val",
            shorter_side=96,
            longest_side=128,
            train_size=16,
            test_size=4,
            like_shapes=4,
            pad_to=64,
        ),
        anchors=AnchorConfig(scales=[16.0, 32.0, 64.0]),
        rpn=RPNOptions(channels=64, min_size=4, pre_nms_train=300, post_nms_train=100, post_nms_test=50),
        roi=RoIOptions(pooling="roi_align", pool_size=7, rois_per_image=32, background_iou_low=0.0),
        train=TrainOptions(steps=4, batch_size=4, checkpoint_every=4, log_every=1, workers=0),
        optimizer=OptimizerConfig(lr=0.005),
        schedule=ScheduleOptions(name="constant"),
        output=str(output),
        device="cuda",
    )


def losses(output: Path) -> list[float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("bf16", 5e-2)])
def test_compiled_layers_with_padded_pictures_give_the_plain_losses(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: Any, tolerance: float
) -> None:
    plain = replace(config(tmp_path / "plain", weights), precision=precision)
    train_detector(plain)
    compiled = replace(plain, train=replace(plain.train, compile=True), output=str(tmp_path / "compiled"))
    train_detector(compiled)
    assert "goes on without" not in capsys.readouterr().out
    first, second = losses(tmp_path / "plain"), losses(tmp_path / "compiled")
    assert len(second) == 4
    assert second[0] == pytest.approx(first[0], rel=tolerance)
    assert second == pytest.approx(first, rel=5 * tolerance)  # rounding adds up, and may choose other proposals
