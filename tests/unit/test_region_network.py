"""The R-CNN step: regions cut out and warped, which of them are trained on, and what becomes of the outputs."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rules import Box, boxes, coding, iou, smooth_l1
from torchvision.transforms.v2.functional import resize

from backbones.errors import ConfigError
from detection.data.annotations import Annotations, DetectionDataset
from detection.localisation.model import build_backbone
from detection.localisation.regions import RegionNetwork, RegionOptions, region_sample, warp

SIDE = 24


def picture(side: int = SIDE) -> torch.Tensor:
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def dataset_of(objects: list[Box]) -> DetectionDataset:
    annotations = Annotations.from_objects(
        class_names=["a"],
        image_ids=["one"],
        sizes=[(SIDE, SIDE)],
        images=[0] * len(objects),
        boxes=objects,
        labels=[1] * len(objects),
    )
    image = picture()
    return DetectionDataset(annotations, lambda index: image)


def test_a_region_of_the_right_size_is_cut_out_as_it_is() -> None:
    image = picture()
    cut = warp(image, torch.tensor([[3.0, 5, 11, 13], [0, 0, 8, 8]]), 8)
    assert torch.equal(cut[0], image[:, 5:13, 3:11])
    assert torch.equal(cut[1], image[:, :8, :8])


def test_a_region_is_warped_as_resizing_would() -> None:
    smooth = resize(picture(6), [SIDE, SIDE])  # on which ways of resizing agree
    cut = warp(smooth, torch.tensor([[2.0, 4, 18, 20]]), 8)[0]
    wanted = resize(smooth[:, 4:20, 2:18], [8, 8], antialias=True)
    assert (cut.int() - wanted.int()).abs().float().mean() < 6
    stretched = warp(smooth, torch.tensor([[2.0, 4, 10, 20]]), 16)[0]
    assert (stretched.int() - resize(smooth[:, 4:20, 2:10], [16, 16]).int()).abs().float().mean() < 6


@settings(deadline=None, max_examples=80)
@given(
    st.lists(boxes(0, SIDE), min_size=1, max_size=10),
    st.lists(boxes(0, SIDE), min_size=1, max_size=2),
    st.integers(0, 2**40),
)
def test_a_region_and_its_goal_by_the_plain_rules(proposals: list[Box], objects: list[Box], seed: int) -> None:
    dataset, size = dataset_of(objects), 8
    sample = region_sample(dataset, 0, torch.tensor(proposals).float(), RegionOptions(size=size), flip=True, seed=seed)
    image = dataset.load_image(0)
    possible = []
    for region in [*proposals, *objects]:
        overlaps = [iou(region, each) for each in objects]
        best = [each for each, o in zip(objects, overlaps, strict=True) if o == max(overlaps)]
        cut = warp(image, torch.tensor([region]).float(), size)[0]
        for each in best:
            shows = max(overlaps) >= 0.5
            goal = coding(each, region) if shows else [0.0] * 4
            possible += [(cut, shows, goal), (cut.flip(2), shows, [-goal[0], *goal[1:]])]
    fits = [
        shows == sample.shows and sample.goal.tolist() == pytest.approx(goal, abs=1e-5)
        for cut, shows, goal in possible
        if torch.equal(cut, sample.image)
    ]
    assert any(fits)


def test_a_quarter_of_the_regions_show_an_object_and_half_are_mirrored() -> None:
    dataset = dataset_of([(0, 0, 12, 24)])
    proposals = torch.tensor([[12.0, 0, 24, 24], [0, 0, 10, 24], [10, 10, 20, 20]])
    samples = [region_sample(dataset, 0, proposals, RegionOptions(size=8), flip=True, seed=seed) for seed in range(400)]
    assert 0.18 < sum(s.shows for s in samples) / 400 < 0.32
    # Of those that show the object, those that are off centre say which way round they are.
    sides = [math.copysign(1, s.goal[0]) for s in samples if s.shows and abs(s.goal[0]) > 0.01]
    assert 0.3 < sides.count(1) / len(sides) < 0.7
    always = RegionOptions(size=8, positive_fraction=1.0)
    samples = [region_sample(dataset, 0, proposals, always, flip=False, seed=seed) for seed in range(20)]
    assert all(s.shows for s in samples)


def region_network(classes: int = 3) -> RegionNetwork:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", {"width": 4}, "batch", [])
    network = RegionNetwork(backbone, classes, mean=[120.0] * 3, std=[60.0] * 3)
    for layer in (network.classification, network.box):
        torch.nn.init.normal_(layer.weight, std=0.5)
    return network.double().eval()


def test_losses_by_the_plain_rules() -> None:
    network = region_network()
    regions = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    labels, shows = torch.tensor([1, 3, 3, 2]), torch.tensor([True, False, True, False])
    goals = torch.randn(4, 4).double() * 0.1
    with torch.no_grad():
        losses = network(regions, labels, shows, goals)
    network.requires_grad_(False)
    features = network.backbone((regions.double() - 120) / 60)
    classification = box = 0.0
    for i in range(4):
        k = int(labels[i]) - 1
        score = torch.sigmoid(network.classification.weight[k, 0] @ features[i] + network.classification.bias[k, 0])
        classification -= math.log(score if shows[i] else 1 - score) / 4
        deltas = F.linear(features[i], network.box.weight[k], network.box.bias[k])
        wanted = goals[i] / torch.tensor([0.1, 0.1, 0.2, 0.2]).double()
        if shows[i]:
            box += sum(smooth_l1(e, 1) for e in (deltas - wanted).tolist()) / 4
    assert losses["classification"].item() == pytest.approx(classification)
    assert losses["box"].item() == pytest.approx(box, rel=1e-5)


def test_rescored_proposals_are_those_of_each_region_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = region_network(), picture(48)
    proposals = torch.tensor([[0.0, 0, 20, 30], [10, 10, 48, 48], [5, 6, 30, 20]])
    labels = torch.tensor([1, 2, 3])
    monkeypatch.setattr("detection.localisation.regions.PORTION", 2)
    scores, found = network.rescore(image, proposals, labels, 32)
    for i in range(3):
        region = warp(image, proposals[i : i + 1], 32)
        logits, deltas = network.predict(region, labels[i : i + 1])
        assert scores[i].item() == pytest.approx(logits.sigmoid().item())
        x1, y1, x2, y2 = proposals[i].tolist()
        dx, dy, dw, dh = (deltas[0] * torch.tensor([0.1, 0.1, 0.2, 0.2]).double()).tolist()
        x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
        w, h = (x2 - x1) * math.exp(min(dw, math.log(1000 / 16))), (y2 - y1) * math.exp(min(dh, math.log(1000 / 16)))
        wanted = [min(max(v, 0), 48) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
        assert found[i].tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 0}, r"regions.size must be in \[1, 10000\]"),
        ({"proposals": 0}, "regions.proposals must be 1 or more"),
        ({"nms_iou": -0.1}, r"regions.nms_iou must be in \[0, 1\]"),
        ({"negative_iou": 0.7}, "regions.negative_iou must be at most positive_iou"),
        ({"positive_fraction": "half"}, "regions.positive_fraction must be a float"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        RegionOptions(**options)
