"""Box refinement, voting, the image pyramid and ensembles against slow, plain implementations (Appendix B)."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms, roi_align, roi_pool

from detection import get_detector
from detection.data.samples import scale_picture
from detection.inference.ensemble import Ensemble, Member, likeliest_boxes
from detection.inference.options import InferenceOptions
from detection.inference.pyramid import Pyramid, adjacent_scales
from detection.models import FasterRCNN, RoIOptions, RPNOptions
from detection.models.postprocessing import vote
from detection.structures import Detections, Target

SIZE = (96, 128)
TRAINED = (48, 64)
CLASSES = 3


def make(backbone: str = "resnet18", *, seed: int = 0, **roi: object) -> FasterRCNN:
    """A tiny detector in float64 whose last two layers tell the regions of `picture()` well apart."""
    torch.manual_seed(seed)
    detector = get_detector(
        backbone,
        CLASSES,
        backbone_options={"width": 4},
        norm="batch",
        freeze_stages=(),
        anchor_scales=(8, 16, 32),
        rpn=RPNOptions(channels=8, min_size=2, post_nms_test=12),
        roi=RoIOptions(**({"pooling": "roi_align", "pool_size": None if "vgg" in backbone else 4} | roi)),
    )
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    detector.double().eval()
    image = seen(picture(), 48)
    with torch.no_grad():
        proposals = detector.propose(image, to_train=False)
        described = detector.roi_heads.describe(detector.features([image]), [proposals], [(48, 64)])
        for layer, deviation in ((detector.roi_heads.classification, 1.5), (detector.roi_heads.box, 0.7)):
            nn.init.normal_(layer.weight)
            answers = layer(described)
            layer.weight *= deviation / answers.std(dim=0, keepdim=True).T
            layer.bias.copy_(-layer(described).mean(dim=0))
    return detector


def picture(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=generator) * 255
    return nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 255)[0].to(torch.uint8)


def find(ensemble: Ensemble, image: Tensor | None = None) -> Detections:
    return ensemble(scale_picture(picture() if image is None else image, 0, ensemble.views).images)


def alone(detector: FasterRCNN, **options: object) -> Ensemble:
    return Ensemble([Member(detector, *TRAINED)], InferenceOptions(**options))


def same(a: Detections, b: Detections) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("boxes", "scores", "labels"))


def assert_close(found: Detections, expected: Detections) -> None:
    assert len(found) == len(expected) > 0
    for name in ("boxes", "scores", "labels"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def plainly(scores: Tensor, boxes: Tensor, size: tuple[int, int], voting: bool = False) -> Detections:
    """Threshold, NMS and voting in loops."""
    found = []
    for k in range(1, CLASSES + 1):
        good = scores[:, k] > 0.05
        score, box = scores[good, k], clip_boxes_to_image(boxes[good, k - 1], size)
        for i in nms(box, score, 0.3).tolist():
            voters = [j for j in range(len(box)) if j == i or overlap(box[i].tolist(), box[j].tolist()) >= 0.5]
            total = sum(float(score[j]) for j in voters)
            mean = [sum(float(score[j]) * float(box[j, c]) for j in voters) / total for c in range(4)]
            found.append((float(score[i]), k, mean if voting else box[i].tolist()))
    found.sort(key=lambda row: -row[0])
    columns = list(zip(*found, strict=True))
    return Detections(torch.tensor(columns[2]).double(), torch.tensor(columns[0]).double(), torch.tensor(columns[1]))


def overlap(a: list[float], b: list[float]) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in range(2))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def proposals_of(detector: FasterRCNN, image: Tensor) -> Tensor:
    with torch.no_grad():
        return detector.propose(image, to_train=False)


def seen(image: Tensor, shorter: int) -> Tensor:
    """A picture with that shorter side."""
    (only,) = scale_picture(image, 0, [(shorter, 2 * shorter)]).images.values()
    return only


def score_one(detector: FasterRCNN, image: Tensor, roi: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (K + 1,) and boxes (K, 4) of one region, by the detector's public layers alone."""
    with torch.no_grad():
        scores, boxes = detector.roi_heads.score_regions(
            detector.features([image]), [roi[None]], [(image.shape[1], image.shape[2])]
        )
    return scores[0], boxes[0]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "vgg16_bn"])
@pytest.mark.parametrize("context", [False, True])
def test_with_no_options_it_is_the_plain_detector_bit_for_bit(backbone: str, context: bool) -> None:
    for pooling in ("roi_pool", "roi_align"):
        detector = make(backbone, pooling=pooling, context=context).float()
        (expected,) = detector([seen(picture(), 48)])
        assert len(expected) > 3
        assert same(find(alone(detector)), expected)


def test_context_is_the_whole_picture_as_one_region_beside_each_region() -> None:
    for backbone, pool_size in (("resnet18", 4), ("vgg16", 7)):
        detector = make(backbone, context=True)
        sizes = [(40, 60), (33, 64)]  # their maps are of one size
        images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
        rois = [torch.tensor([[4.0, 4, 30, 30], [10, 2, 60, 33]]).double(), torch.tensor([[0.0, 0, 20, 33]]).double()]
        with torch.no_grad():
            features = detector.features(images)
            described = detector.roi_heads.describe(features, rois, sizes)
            rows = []
            for i, (height, width) in enumerate(sizes):
                whole = torch.tensor([[0.0, 0, width, height]]).double()
                for roi in rois[i]:
                    pooled = [
                        roi_align(features[i : i + 1], [box], pool_size, 1 / 16, 2, True) for box in (roi[None], whole)
                    ]
                    rows.append(torch.cat([detector.split.region(each)[0] for each in pooled]))
        torch.testing.assert_close(described, torch.stack(rows))


def test_context_is_trained_end_to_end() -> None:
    detector = make(context=True, background_iou_low=0.0).train()
    features = torch.randn(1, 16, 4, 4, dtype=torch.double, requires_grad=True)
    corner = torch.tensor([[0.0, 0, 12, 12]]).double()
    logits, _ = detector.roi_heads.predict(detector.roi_heads.describe(features, [corner], [(64, 64)]))
    logits[0, 0].backward()
    assert (features.grad[0, :, 3, 3] != 0).any()  # far from the region
    assert make().roi_heads.classification.in_features * 2 == detector.roi_heads.classification.in_features


@pytest.mark.parametrize("voting", [False, True])
def test_refinement_pools_each_region_again_from_its_likeliest_box(voting: bool) -> None:
    detector, image = make(), seen(picture(), 48)
    rows = []
    for roi in proposals_of(detector, image):
        scores, boxes = score_one(detector, image, roi)
        rows.append((scores, boxes))
        again = boxes[max(range(CLASSES), key=lambda k: float(scores[k + 1]))]
        again = torch.minimum(again.clamp(min=0), again.new_tensor([64, 48, 64, 48]))
        rows.append(score_one(detector, image, again))
    scores, boxes = (torch.stack(each) for each in zip(*rows, strict=True))
    found = find(alone(detector, refine=True, vote=voting))
    assert_close(found, plainly(scores, boxes, (48, 64), voting))
    assert not same(found, find(alone(detector, vote=voting)))


@pytest.mark.parametrize("voting", [False, True])
def test_refinement_changes_nothing_where_regression_is_zero(voting: bool) -> None:
    """Each region is then there twice: NMS drops one, and both vote alike."""
    detector = make()
    nn.init.zeros_(detector.roi_heads.box.weight)
    nn.init.zeros_(detector.roi_heads.box.bias)
    assert_close(find(alone(detector, refine=True, vote=voting)), find(alone(detector, vote=voting)))


def test_the_box_that_is_pooled_again_is_that_of_the_likeliest_class_however_likely_the_background() -> None:
    scores = torch.tensor([[0.9, 0.01, 0.02, 0.07], [0.1, 0.2, 0.6, 0.1], [0.5, 0.3, 0.1, 0.1]])
    boxes = torch.arange(36.0).view(3, 3, 4)
    assert torch.equal(likeliest_boxes(scores, boxes), torch.stack([boxes[0, 2], boxes[1, 1], boxes[2, 0]]))


def test_refinement_survives_a_network_that_answers_no_numbers() -> None:
    detector = make()
    nn.init.constant_(detector.roi_heads.box.bias, math.nan)
    find(alone(detector, refine=True, vote=True))


def test_voting_alone() -> None:
    detector, image = make(), seen(picture(), 48)
    rows = [score_one(detector, image, roi) for roi in proposals_of(detector, image)]
    scores, boxes = (torch.stack(each) for each in zip(*rows, strict=True))
    found, plain = find(alone(detector, vote=True)), find(alone(detector))
    assert_close(found, plainly(scores, boxes, (48, 64), voting=True))
    assert torch.equal(found.scores, plain.scores)
    assert not torch.equal(found.boxes, plain.boxes)


corner = st.integers(0, 12)


@given(
    st.lists(st.tuples(corner, corner, corner, corner, st.floats(0.01, 1), st.integers(0, 1)), min_size=1, max_size=9),
    st.data(),
)
def test_votes_are_weighted_by_score_and_of_one_class(rows: list[tuple], data: st.DataObject) -> None:
    boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d, _, _ in rows]
    scores, labels = [row[4] for row in rows], [row[5] for row in rows]
    kept = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True))
    found = vote(
        torch.tensor(kept, dtype=torch.int64),
        torch.tensor(boxes).double(),
        torch.tensor(scores).double(),
        torch.tensor(labels),
    )
    for i, box in zip(kept, found.tolist(), strict=True):
        voters = [
            j
            for j in range(len(rows))
            if j == i or (labels[j] == labels[i] and overlap(boxes[i], boxes[j]) >= 0.5 - 1e-12)
        ]
        total = sum(scores[j] for j in voters)
        assert box == pytest.approx([sum(scores[j] * boxes[j][c] for j in voters) / total for c in range(4)])


@given(
    st.lists(st.floats(0.1, 8), min_size=1, max_size=6, unique=True).map(sorted),
    st.tuples(st.floats(0, 200), st.floats(0.5, 200)),
)
def test_the_two_scales_are_those_between_which_a_region_has_the_wanted_side(
    factors: list[float], sides: tuple[float, float]
) -> None:
    roi = torch.tensor([[3.0, 4.0, 3 + sides[0], 4 + sides[1]]]).double()
    lower, upper = adjacent_scales(roi, factors, 50)[0].tolist()
    area = float((roi[0, 2] - roi[0, 0]) * (roi[0, 3] - roi[0, 1]))
    looks = [math.sqrt(area) * factor for factor in factors]
    if len(factors) == 1:
        assert (lower, upper) == (0, 0)
        return
    assert upper == lower + 1
    assert lower == 0 or looks[lower] <= 50 * (1 + 1e-9)
    assert upper == len(factors) - 1 or looks[upper] >= 50 * (1 - 1e-9)


SCALES = [24, 36, 48, 72]


def on_two_scales(detector: FasterRCNN, image: Tensor, roi: Tensor, chosen: list[int]) -> list[tuple[Tensor, Tensor]]:
    """The feature map of each scale and the region (1, 4) in its pixels."""
    pairs = []
    for i in chosen:
        scaled = seen(image, SCALES[i])
        height, width = scaled.shape[1] / 48, scaled.shape[2] / 64
        pairs.append((detector.features([scaled]), (roi * roi.new_tensor([width, height, width, height]))[None]))
    return pairs


def pooled_of(detector: FasterRCNN, features: Tensor, roi: Tensor) -> Tensor:
    heads = detector.roi_heads
    if heads.options.pooling == "roi_pool":
        return roi_pool(features, [roi], heads.pool_size, 1 / 16)
    return roi_align(features, [roi], heads.pool_size, 1 / 16, 2, True)


def merged_plainly(detector: FasterRCNN, image: Tensor, roi: Tensor, merge: str) -> tuple[Tensor, Tensor]:
    """One region of the picture at its trained size, looked at on two scales; RoI by RoI, scale by scale."""
    heads = detector.roi_heads
    side = math.sqrt(float((roi[2] - roi[0]) * (roi[3] - roi[1])))
    lower = max([i for i in range(1, len(SCALES) - 1) if SCALES[i] / 48 * side <= 20], default=0)
    both = on_two_scales(detector, image, roi, [lower, lower + 1])
    whole = detector.features([seen(image, 48)]), torch.tensor([[0.0, 0, 64, 48]]).double()
    context = [detector.split.region(pooled_of(detector, *whole))[0]] if heads.options.context else []

    def predict(features: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([features, *context])
        return heads.classification(x).softmax(0), heads.box(x).view(CLASSES, 4)

    if merge == "scores":
        first, second = (predict(detector.split.region(pooled_of(detector, *each))[0]) for each in both)
        better = second[0] > first[0]
        scores, deltas = torch.maximum(first[0], second[0]), first[1].where(~better[1:, None], second[1])
    elif merge == "features":
        scores, deltas = predict(torch.maximum(*(detector.split.region(pooled_of(detector, *p))[0] for p in both)))
    else:
        scores, deltas = predict(detector.split.region(torch.maximum(*(pooled_of(detector, *p) for p in both)))[0])
    boxes = []
    for k in range(CLASSES):
        dx, dy, dw, dh = (deltas[k] * deltas.new_tensor([0.1, 0.1, 0.2, 0.2])).tolist()
        w, h = (roi[2] - roi[0]).item(), (roi[3] - roi[1]).item()
        x, y = (roi[0] + roi[2]).item() / 2 + dx * w, (roi[1] + roi[3]).item() / 2 + dy * h
        w, h = w * math.exp(dw), h * math.exp(dh)
        boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return scores, torch.tensor(boxes).double()


@pytest.mark.parametrize("merge", ["pooled", "features", "scores"])
@pytest.mark.parametrize(
    ("backbone", "options"),
    [("resnet18", {}), ("resnet18", {"context": True, "pooling": "roi_pool"}), ("vgg16", {"context": True})],
)
def test_each_region_on_its_two_scales(backbone: str, options: dict, merge: str) -> None:
    detector = make(backbone, **options)
    rois = torch.tensor([[0, 0, 64, 48], [2, 2, 14, 12], [8, 20, 40, 40], [30, 4, 60, 30], [1, 30, 30, 47]]).double()
    assert adjacent_scales(rois, [side / 48 for side in SCALES], 20)[:, 0].unique().tolist() == [0, 1, 2]
    with torch.no_grad():
        rows = [merged_plainly(detector, picture(), roi, merge) for roi in rois]
    scores, boxes = (torch.stack(each) for each in zip(*rows, strict=True))
    ensemble = alone(detector, scales=SCALES, region_side=20, merge=merge)
    images = scale_picture(picture(), 0, ensemble.views).images
    assert_close(ensemble(images, rois), plainly(scores, boxes, (48, 64)))


def test_proposals_are_of_the_trained_size() -> None:
    detector = make()
    ensemble = alone(detector, scales=[24, 72])
    images = scale_picture(picture(), 0, ensemble.views).images
    assert same(ensemble(images), ensemble(images, proposals_of(detector, seen(picture(), 48))))


@pytest.mark.parametrize("merge", ["pooled", "features", "scores"])
def test_a_pyramid_of_the_trained_scale_alone_is_the_plain_detector(merge: str) -> None:
    for context in (False, True):
        detector = make(context=context)
        assert_close(find(alone(detector, scales=[48], merge=merge)), find(alone(detector)))


def test_maps_are_made_once_for_each_picture_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, made = make(), []
    plain = detector.features
    monkeypatch.setattr(detector, "features", lambda images: made.append(tuple(images[0].shape[1:])) or plain(images))
    ensemble = alone(detector, scales=SCALES, refine=True)
    find(ensemble)
    assert sorted(made) == [(24, 32), (36, 48), (48, 64), (72, 96)]
    assert ensemble.views == [(48, 64), (24, 32), (36, 48), (72, 96)]


def test_an_ensemble_is_the_mean_over_the_union_of_proposals() -> None:
    """Backbones, sizes, and numbers of proposals differ."""
    first, second = make(seed=1), make("vgg16_bn", seed=2, pooling="roi_pool", context=True)
    image = picture(3)
    small, large = seen(image, 48), seen(image, 80)
    ratio = torch.tensor([107 / 64, 80 / 48, 107 / 64, 80 / 48]).double()
    assert large.shape[1:] == (80, 107)
    rois = torch.cat([proposals_of(first, small), proposals_of(second, large) / ratio])
    rows = []
    for roi in rois:
        (a, a_boxes), (b, b_boxes) = score_one(first, small, roi), score_one(second, large, roi * ratio)
        rows.append(((a + b) / 2, (a_boxes + b_boxes / ratio) / 2))
    scores, boxes = (torch.stack(each) for each in zip(*rows, strict=True))
    # Thresholds, NMS and the number of detections are the first one's.
    theirs = second.roi_heads.options
    second.roi_heads.options = replace(theirs, score_threshold=0.6, nms_iou=0.9, detections_per_image=2)
    members = [Member(first, 48, 64), Member(second, 80, 160)]
    assert_close(find(Ensemble(members, InferenceOptions()), image), plainly(scores, boxes, (48, 64)))


def test_a_detector_votes_with_itself_as_alone() -> None:
    detector = make()
    member = Member(detector, *TRAINED)
    for options in ({}, {"refine": True, "vote": True}, {"scales": [24, 48], "region_side": 20}):
        twice = Ensemble([member, member], InferenceOptions(**options))
        assert_close(find(twice), find(alone(detector, **options)))


def test_given_proposals_take_the_place_of_its_own() -> None:
    detector = make()
    given_boxes = torch.tensor([[3.0, 3, 40, 44]]).double()
    ensemble = alone(detector)
    images = scale_picture(picture(), 0, ensemble.views).images
    scores, boxes = score_one(detector, seen(picture(), 48), given_boxes[0])
    assert_close(ensemble(images, given_boxes), plainly(scores[None], boxes[None], (48, 64)))


def test_regions_without_area_are_scored_on_the_largest_scales() -> None:
    detector = make()
    features = detector.features([seen(picture(), 48)])
    pyramid = Pyramid(detector.roi_heads, (48, 64), None, [(features, (48, 64)), (features, (48, 64))], 20, "features")
    with torch.no_grad():
        scores, boxes = pyramid.score(torch.tensor([[5.0, 5, 5, 5]]).double())
    assert scores.isfinite().all()
    assert boxes.isfinite().all()


def test_votes_are_counted_in_full_precision_under_autocast() -> None:
    box = torch.tensor([[101.3, 203.7, 997.4, 601.2]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vote(torch.tensor([0]), box, torch.tensor([0.7]), torch.tensor([0])), box)


def test_the_whole_picture_is_exact_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, pooled = make(context=True).float(), []
    plain = detector.roi_heads.pool
    monkeypatch.setattr(
        detector.roi_heads, "pool", lambda f, rois: pooled.append(rois[0][-1].tolist()) or plain(f, rois)
    )
    image = torch.zeros(3, 301, 603, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        find(Ensemble([Member(detector, 301, 603)], InferenceOptions()), image)
    assert pooled == [[0, 0, 603, 301]]


def test_members_of_other_sizes_see_the_same_region_exactly_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, pooled = make().float(), make(seed=1).float(), []
    plain = second.roi_heads.pool
    monkeypatch.setattr(second.roi_heads, "pool", lambda f, rois: pooled.append(rois[0][0].tolist()) or plain(f, rois))
    ensemble = Ensemble([Member(first, 301, 603), Member(second, 450, 900)], InferenceOptions())
    images = scale_picture(torch.zeros(3, 301, 603, dtype=torch.uint8), 0, ensemble.views).images
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ensemble(images, torch.tensor([[0.0, 0, 603, 301]]))
    assert pooled == [pytest.approx([0, 0, 900, 449], abs=0.01)]


def test_a_scale_whose_sides_were_rounded_apart_is_as_large_as_its_area(monkeypatch: pytest.MonkeyPatch) -> None:
    """47 x 66 pixels are 1.005 times 48 x 64, though less high: a region for 0.99 lies below."""
    detector, used = make(), []
    levels = [
        (torch.zeros(1, 16, -(-h // 16), -(-w // 16)).double(), (h, w)) for h, w in [(24, 32), (47, 66), (96, 128)]
    ]
    plain = detector.roi_heads.pool
    monkeypatch.setattr(detector.roi_heads, "pool", lambda f, rois: used.append(tuple(f.shape[2:])) or plain(f, rois))
    with torch.no_grad():
        Pyramid(detector.roi_heads, (48, 64), None, levels, 19.8, "features").score(
            torch.tensor([[2.0, 2, 22, 22]]).double()
        )
    assert used == [(2, 2), (3, 5)]


def test_live_batch_norm_sees_regions_and_whole_pictures_together() -> None:
    """Also where a picture alone has too few pixels for statistics."""
    detector = make(context=True, background_iou_low=0.0, pool_size=2).train()
    counters = [name for name in detector.state_dict() if name.endswith("num_batches_tracked")]
    before = {name: int(detector.state_dict()[name]) for name in counters}
    target = Target(torch.tensor([[4.0, 4, 30, 30]]), torch.tensor([1]), torch.tensor([False]))
    detector([seen(picture(), 48)], [target], [0])
    assert {int(detector.state_dict()[name]) - before[name] for name in counters} == {1}


def test_regions_are_scored_no_more_at_a_time_than_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, scored = make(), []
    plain = detector.roi_heads.pool
    monkeypatch.setattr(detector.roi_heads, "pool", lambda f, rois: scored.append(len(rois[0])) or plain(f, rois))
    found = find(Ensemble([Member(detector, *TRAINED)] * 3, InferenceOptions()))
    most = len(proposals_of(detector, seen(picture(), 48)))
    assert max(scored) <= 12
    assert sum(scored) == 9 * most
    assert_close(found, find(alone(detector)))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_everything_together_runs_in_any_precision(precision: torch.dtype) -> None:
    first, second = make(context=True).float(), make("resnet50", context=True).float()
    options = InferenceOptions(refine=True, vote=True, scales=SCALES, region_side=20)
    ensemble = Ensemble([Member(first, *TRAINED), Member(second, 60, 100)], options)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        found = find(ensemble)
    assert len(found) > 0
    assert found.boxes.isfinite().all()
    assert found.scores.dtype == found.boxes.dtype == torch.float32
