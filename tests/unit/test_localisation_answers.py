"""From views of pictures to answers: the fully convolutional network, voting, proposals, and the order of pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from backbones.engine.distributed import World
from backbones.errors import DataError
from detection.data.annotations import Annotations, DetectionDataset
from detection.localisation.merging import best_box, propose, vote
from detection.localisation.model import Localiser, build_backbone
from detection.localisation.predictions import draw_sheet
from detection.localisation.regions import RegionNetwork, RegionOptions
from detection.localisation.rpn import ClassRPNOptions
from detection.localisation.scoring import Outcome, localisation_results, own_class
from detection.localisation.subset import evenly_spaced, trainable
from detection.localisation.testing import Located, Rescoring, Running, Showing, localise

ALONE = Running(World(0, 1, torch.device("cpu")), batch_size=3)


def small_localiser(stage: str = "conv5", network: str = "resnet18") -> Localiser:
    torch.manual_seed(0)
    localiser = Localiser(
        build_backbone(network, {"width": 4}, "batch", []),
        3,
        anchor_scales=(12.0, 24.0),
        anchor_ratios=(0.5, 1.0, 2.0),
        mean=(120.0, 120.0, 120.0),
        std=(60.0, 60.0, 60.0),
        options=ClassRPNOptions(stage=stage, channels=8),
    )
    for layer in (localiser.rpn.objectness, localiser.rpn.box):
        torch.nn.init.normal_(layer.weight, std=0.5)
    return localiser.eval()


def random_dataset(sizes: list[tuple[int, int]]) -> DetectionDataset:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    annotations = Annotations.from_objects(
        class_names=["a", "b", "c"],
        image_ids=list(range(len(sizes))),
        sizes=sizes,
        images=range(len(sizes)),
        boxes=[(1, 2, 0.5 * width, 0.9 * height) for height, width in sizes],
        labels=[1 + i % 3 for i in range(len(sizes))],
    )
    return DetectionDataset(annotations, lambda index: images[index])


@pytest.mark.parametrize("stage", ["conv4", "conv5"])
def test_fully_convolutional_is_the_central_crop_where_the_picture_is_just_that(stage: str) -> None:
    localiser, dataset = small_localiser(stage), random_dataset([(48, 48)] * 4)
    labels = own_class(dataset.annotations)
    center = Showing("center", 48, 48, [])
    whole = Showing("dense", 48, 48, [48], mirror=False)
    views = [showing.views(dataset.load_image(0)) for showing in (center, whole)]
    assert torch.equal(views[0][0].image, views[1][0].image)
    found = [localiser.locate(own[0].image[None], labels[:1]) for own in views]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    a, b = localise(localiser, dataset, labels, center, ALONE), localise(localiser, dataset, labels, whole, ALONE)
    assert torch.equal(a["center"].scores, b["dense"].scores)  # the best score; voting only moves the box


def test_answers_do_not_depend_on_which_pictures_are_shown_together() -> None:
    localiser = small_localiser()
    dataset = random_dataset([(48, 64), (70, 50), (48, 64), (41, 90), (70, 50)])
    labels = torch.tensor([[1, 2], [2, 2], [3, 1], [1, 3], [2, 1]])
    showing = Showing("dense", 32, 40, [40, 52])
    together = localise(localiser, dataset, labels, showing, ALONE)["dense"]
    alone = localise(localiser, dataset, labels, showing, replace(ALONE, batch_size=1))["dense"]
    torch.testing.assert_close(together.scores, alone.scores)
    torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-3, rtol=1e-4)
    for i, (height, width) in enumerate(dataset.annotations.sizes):
        for p in range(2):
            pooled: list[tuple[Tensor, Tensor]] = []
            for view in showing.views(dataset.load_image(i)):
                scores, boxes = localiser.locate(view.image[None], labels[i : i + 1, p : p + 1])
                pooled.append((scores[0, 0], view.to_picture(boxes[0, 0])))
            score, box = vote(*(torch.cat(each) for each in zip(*pooled, strict=True)))
            torch.testing.assert_close(together.scores[i, p], score)
            torch.testing.assert_close(together.boxes[i, p], box, atol=1e-3, rtol=1e-4)
            x1, y1, x2, y2 = together.boxes[i, p].tolist()
            assert -1e-3 <= x1 <= x2 <= width + 1e-3
            assert -1e-3 <= y1 <= y2 <= height + 1e-3


scored = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 9), st.integers(0, 9), st.integers(0, 12), st.integers(0, 12)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(scored)
def test_voting_is_the_plain_weighted_mean(rows: list[tuple[float, int, int, int, int]]) -> None:
    boxes = [(x, y, x + w, y + h) for _, x, y, w, h in rows]
    scores = [row[0] for row in rows]
    score, box = vote(torch.tensor(scores, dtype=torch.float64), torch.tensor(boxes, dtype=torch.float64))
    assert score.item() == max(scores)
    index = scores.index(max(scores))
    sums, total = [0.0] * 4, 0.0
    for place, (weight, other) in enumerate(zip(scores, boxes, strict=True)):
        best = boxes[index]
        common = max(0, min(best[2], other[2]) - max(best[0], other[0])) * max(
            0, min(best[3], other[3]) - max(best[1], other[1])
        )
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (best, other)]
        if place == index or (common > 0 and 2 * common >= sum(areas) - common):
            weight = max(weight, torch.finfo(torch.float64).tiny)
            sums = [s + weight * v for s, v in zip(sums, other, strict=True)]
            total += weight
    assert box.tolist() == pytest.approx([s / total for s in sums], abs=1e-6)


def test_one_box_far_from_all_others_is_its_own_vote() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [51, 50, 61, 60]])
    score, box = vote(torch.tensor([0.9, 0.8, 0.8]), boxes)
    assert (score.item(), box.tolist()) == (pytest.approx(0.9), [0, 0, 10, 10])
    assert best_box(torch.tensor([0.1, 0.2, 0.8]), boxes)[1].tolist() == [51, 50, 61, 60]


def test_proposals_are_the_best_boxes_that_differ() -> None:
    picture = torch.zeros(3, 40, 80)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [5, 5, 5.5, 30], [0, 0, 10, 6]])
    scores = torch.tensor([0.5, 0.9, 0.1, 1.0, 0.4])
    found = propose(scores, boxes, picture, nms_iou=0.7, most=9)
    assert found.tolist() == [[0, 0, 10, 9], [0, 0, 10, 6], [20, 0, 30, 10]]
    assert propose(scores, boxes, picture, nms_iou=0.7, most=1).tolist() == [[0, 0, 10, 9]]
    assert propose(scores[3:4], boxes[3:4], picture, nms_iou=0.7, most=9).tolist() == [[0, 0, 80, 40]]


def test_results_by_hand() -> None:
    """Three pictures of 20x10: an object on the whole of it, on 60 % and on 40 %; classes 1, 2, 3."""
    annotations = Annotations.from_objects(
        class_names=["a", "b", "c"],
        image_ids=["x", "y", "z"],
        sizes=[(10, 20)] * 3,
        images=[0, 1, 2],
        boxes=[(0, 0, 20, 10), (0, 0, 12, 10), (12, 0, 20, 10)],
        labels=[1, 2, 3],
    )
    assert own_class(annotations).tolist() == [[1], [2], [3]]
    whole = torch.tensor([[[0.0, 0, 20, 10]] * 2] * 3)
    classes = torch.tensor([[1, 2], [1, 2], [3, 1]])
    results = localisation_results(annotations, whole[:, :1], (classes, whole))
    third = pytest.approx(100 / 3)
    assert results == {
        "own_class_error": third,
        "top1_localisation_error": pytest.approx(200 / 3),
        "top5_localisation_error": third,
        "top1_error": third,
        "top5_error": 0,
    }
    assert localisation_results(annotations, whole[:, :1], None) == {"own_class_error": third}


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_part_of_a_data_set_keeps_pictures_and_objects_together(size: int, count: int) -> None:
    dataset = random_dataset([(20 + i, 30) for i in range(size)])
    part = evenly_spaced(dataset, count)
    assert len(part) == min(size, count)
    ids = part.annotations.image_ids
    assert ids == sorted(set(ids))
    for place, index in enumerate(ids):
        assert torch.equal(part.load_image(place), dataset.load_image(int(index)))
        assert torch.equal(part.target(place).boxes, dataset.target(int(index)).boxes)
        assert torch.equal(part.target(place).labels, dataset.target(int(index)).labels)
    assert evenly_spaced(dataset, None) is dataset


def test_blacklisted_pictures_are_not_trained_on() -> None:
    dataset = random_dataset([(20, 30), (21, 30), (22, 30), (23, 30)])
    assert trainable(dataset) is dataset
    dataset.annotations.ignore[[0, 2]] = True
    dataset.without_boxes = 7
    part = trainable(dataset)
    assert part.annotations.image_ids == [1, 3]
    assert torch.equal(part.load_image(1), dataset.load_image(3))
    assert part.without_boxes == 7
    dataset.annotations.ignore[:] = True
    with pytest.raises(DataError, match="blacklist"):
        trainable(dataset)


@pytest.mark.parametrize("network", ["resnet18", "vgg16"])
def test_long_and_narrow_pictures_are_shown_whole(network: str) -> None:
    dataset = random_dataset([(2, 90), (90, 3), (1, 1)])
    localiser, labels = small_localiser(network=network), own_class(dataset.annotations)
    found = localise(localiser, dataset, labels, Showing("dense", 32, 40, [3, 20]), ALONE)["dense"]
    for (x1, y1, x2, y2), (height, width) in zip(found.boxes[:, 0].tolist(), dataset.annotations.sizes, strict=True):
        assert -1e-3 <= x1 <= x2 <= width + 1e-3
        assert -1e-3 <= y1 <= y2 <= height + 1e-3


def test_outputs_that_are_no_numbers_give_scores_and_boxes_that_are() -> None:
    dataset, localiser = random_dataset([(48, 64)]), small_localiser()
    regions = RegionNetwork(build_backbone("resnet18", {"width": 4}, "batch", []), 3, mean=[120.0] * 3, std=[60.0] * 3)
    for layer in (localiser.rpn.objectness, localiser.rpn.box, regions.classification, regions.box):
        torch.nn.init.constant_(layer.weight, float("nan"))
    rescoring = Rescoring(regions.eval(), RegionOptions(size=32, proposals=4))
    for showing in (Showing("center", 40, 44, []), Showing("dense", 40, 44, [40])):
        for found in localise(localiser, dataset, own_class(dataset.annotations), showing, ALONE, rescoring).values():
            assert found.scores.isfinite().all()
            assert found.boxes.isfinite().all()


def test_boxes_and_regions_are_float32_under_autocast() -> None:
    """Pixels beyond 256 are no bfloat16 numbers: boxes that had been such would all be even."""
    dataset = random_dataset([(300, 420)])
    localiser = small_localiser()
    for layer in (localiser.rpn.objectness, localiser.rpn.box):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, 0.013)
    regions = RegionNetwork(build_backbone("resnet18", {"width": 4}, "batch", []), 3, mean=[120.0] * 3, std=[60.0] * 3)
    for head in (regions.classification, regions.box):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, 0.013)
    rescoring = Rescoring(regions.eval(), RegionOptions(size=32, proposals=4))
    showing, labels = Showing("dense", 300, 300, [300], mirror=True), own_class(dataset.annotations)
    plain, cast = (
        localise(localiser, dataset, labels, showing, running, rescoring)
        for running in (ALONE, replace(ALONE, precision="bf16"))
    )
    for way, wanted in plain.items():
        torch.testing.assert_close(cast[way].boxes, wanted.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(cast[way].scores, wanted.scores, atol=1e-6, rtol=0)


def test_a_sheet_of_odd_pictures_stays_small(tmp_path: Path) -> None:
    dataset = random_dataset([(2, 3000), (3000, 2), (1, 1), (40, 60)])
    labels = own_class(dataset.annotations)
    boxes = torch.tensor([[[0.0, 0, width, height]] for height, width in dataset.annotations.sizes])
    found = {"center": Located(torch.full((4, 1), 0.5), boxes)}
    draw_sheet(tmp_path / "sheet.png", dataset, Outcome({}, {"center": labels}, found))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert max(sheet.size) < 3000


def test_each_class_gets_the_regions_of_its_own() -> None:
    torch.manual_seed(0)
    dataset, showing = random_dataset([(48, 64), (70, 50)]), Showing("center", 40, 44, [])
    regions = RegionNetwork(build_backbone("resnet18", {"width": 4}, "batch", []), 3, mean=[120.0] * 3, std=[60.0] * 3)
    for layer in (regions.classification, regions.box):
        torch.nn.init.normal_(layer.weight, std=0.5)
    rescoring, labels = (
        Rescoring(regions.eval(), RegionOptions(size=32, proposals=4)),
        torch.tensor([[1, 3, 1], [2, 1, 3]]),
    )
    found = localise(small_localiser(), dataset, labels, showing, ALONE, rescoring)["center_rcnn"]
    for place in range(3):
        one = labels[:, place : place + 1]
        alone = localise(small_localiser(), dataset, one, showing, ALONE, rescoring)["center_rcnn"]
        torch.testing.assert_close(found.scores[:, place], alone.scores[:, 0])
        torch.testing.assert_close(found.boxes[:, place], alone.boxes[:, 0], atol=1e-3, rtol=1e-4)
