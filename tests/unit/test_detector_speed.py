"""What makes a detector fast changes nothing: boxes picked picture by picture, padding, compiled layers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

from backbones.engine.step import why_not_compiled
from detection.models import FasterRCNN, RoIOptions, RPNOptions, get_detector
from detection.models.boxes import decode
from detection.models.rpn import RPN, Predictions
from detection.structures import Sample, ScaledPicture, Target


def proposals_of_one(rpn: RPN, predictions: Predictions, size: tuple[int, int], before: int, after: int) -> Tensor:
    scores, index = predictions.logits.topk(min(before, len(predictions.logits)))
    boxes = decode(predictions.deltas[index], predictions.anchors[index])
    boxes = clip_boxes_to_image(boxes.nan_to_num(0.0), size)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= rpn.options.min_size).all(dim=1)
    boxes, scores = (boxes[large], scores[large]) if large.any() else (boxes, scores)
    return boxes[nms(boxes, scores, rpn.options.nms_iou)[:after]]


@pytest.mark.parametrize("sizes", [[(64, 90), (60, 96), (64, 96)], [(64, 96), (30, 96), (64, 20)]])
def test_proposals_of_a_batch_are_those_of_each_picture_bit_for_bit(sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    options = RPNOptions(channels=8, pre_nms_test=60, post_nms_test=20, min_size=20)
    rpn = RPN(4, 16, anchor_scales=(16, 32, 64), anchor_ratios=(0.5, 1, 2), options=options)
    predictions = rpn.predict(torch.randn(3, 4, 4, 6), sizes)
    for each in predictions:
        each.logits, each.deltas = torch.randn_like(each.logits), 0.5 * torch.randn_like(each.deltas)
    predictions[1].deltas[3] = torch.nan
    found = rpn.propose(predictions, sizes, to_train=False)
    for each, size, proposals in zip(predictions, sizes, found, strict=True):
        assert torch.equal(proposals, proposals_of_one(rpn, each, size, 60, 20))


def make_detector() -> FasterRCNN:
    torch.manual_seed(0)
    return get_detector(
        "resnet18",
        3,
        backbone_options={"width": 4},
        norm="batch",
        freeze_stages=(),
        anchor_scales=(16, 32),
        rpn=RPNOptions(channels=8, min_size=4, pre_nms_train=100, post_nms_train=20, ignore_border_anchors=False),
        roi=RoIOptions(rois_per_image=8, pooling="roi_align", background_iou_low=0.0),
    )


IMAGES = [torch.randint(256, (3, h, w), dtype=torch.uint8) for h, w in ((64, 80), (60, 90))]
TARGET = Target(torch.tensor([[8.0, 8, 40, 44]]), torch.tensor([2]), torch.tensor([False]))


def losses(detector: FasterRCNN, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.002, momentum=0.9)
    curve = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = torch.stack(list(detector(IMAGES, [TARGET, TARGET], [step, step + 1000]).values())).sum()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


def test_padding_makes_pictures_of_few_sizes_and_is_for_training_alone() -> None:
    detector = make_detector()
    assert detector.features(IMAGES[:1]).shape[2:] == (4, 5)
    detector.pad_to = 50  # up to a multiple of the stride: 64
    assert detector.features(IMAGES[:1]).shape[2:] == (4, 8)
    assert detector.features(IMAGES[1:]).shape[2:] == (4, 8)
    assert all(torch.tensor(losses(detector, 2)).isfinite())
    assert detector.eval().features(IMAGES[:1]).shape[2:] == (4, 5)


def test_sizes_are_compiled_until_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = make_detector().train()
    compiled: list[torch.Size] = []

    def compile_nothing(function: Callable[[Tensor], Tensor], **_: object) -> Callable[[Tensor], Tensor]:
        return lambda batch: compiled.append(batch.shape) or function(batch)  # type: ignore[func-returns-value]

    monkeypatch.setattr(torch, "compile", compile_nothing)
    monkeypatch.setattr("detection.models.faster_rcnn._COMPILED_SIZES", 2)
    plain = detector.features(IMAGES[:1])
    detector.compile_layers()
    assert torch.equal(detector.features(IMAGES[:1]), plain)
    detector.features(IMAGES[1:])
    detector.features(IMAGES[:1])
    assert len(compiled) == 3
    with pytest.warns(UserWarning, match=r"not compiled for more than 2 sizes: set data\.pad_to"):
        detector.features([*IMAGES, *IMAGES])
    detector.eval().features(IMAGES[:1])
    assert len(compiled) == 3


@pytest.mark.slow
def test_compiled_losses_are_the_plain_ones_over_50_steps() -> None:
    if reason := why_not_compiled(torch.device("cpu")):
        pytest.skip(reason)
    plain, compiled = make_detector().double(), make_detector().double()
    compiled.compile_layers()
    # In float64, so that no region changes sides by rounding.
    assert losses(compiled, 50) == pytest.approx(losses(plain, 50), rel=1e-6)


def test_samples_and_pictures_move_whole() -> None:
    sample = Sample(IMAGES[0], TARGET, 3, (64, 80), 7, torch.zeros(2, 4)).to("meta")
    assert all(t.is_meta for t in (sample.image, sample.target.boxes, sample.target.ignore, sample.proposals))
    assert (sample.index, sample.seed, sample.original_size) == (3, 7, (64, 80))
    picture = ScaledPicture({(60, 90): IMAGES[0]}, 5, (64, 80)).to("meta")
    assert picture.images[60, 90].is_meta
    assert (picture.index, picture.original_size) == (5, (64, 80))
