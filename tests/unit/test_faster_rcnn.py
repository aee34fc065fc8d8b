"""The whole detector on tiny networks and pictures."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import misc

from backbones.errors import CheckpointError, ConfigError
from backbones.models import get_model
from detection import get_detector
from detection.models import FasterRCNN, RoIOptions, RPNOptions, describe_parameters
from detection.models.frozen_bn import FrozenBatchNorm2d
from detection.structures import Target

RPN = RPNOptions(channels=16, anchors_per_image=32, post_nms_train=100, post_nms_test=20)
ROI = RoIOptions(background_iou_low=0.0, rois_per_image=16)
LOSSES = ["rpn_objectness", "rpn_box", "classification", "box"]


def make(backbone: str = "resnet18", **options: object) -> FasterRCNN:
    """A tiny detector with live batch normalisation and nothing frozen, unless asked for otherwise."""
    torch.manual_seed(0)
    settings: dict = {"norm": "batch", "freeze_stages": (), "rpn": RPN, "roi": ROI, "anchor_scales": (16, 32, 64)}
    settings |= {"backbone_options": {"width": 4}}
    return get_detector(backbone, 3, **(settings | options))


def picture(height: int = 64, width: int = 80, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def objects(*boxes: tuple[float, float, float, float], ignore: bool = False) -> Target:
    n = len(boxes)
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(n, 4),
        torch.arange(n) % 3 + 1,
        torch.full((n,), ignore),
    )


IMAGES = [picture(seed=1), picture(seed=2)]
TARGETS = [objects((10, 10, 40, 44), (30, 20, 76, 60)), objects((4, 30, 30, 60))]


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(losses.values())


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "plain18", "vgg16", "vgg16_bn"])
def test_every_trainable_parameter_learns_and_detections_are_in_order(backbone: str):
    detector = make(backbone)
    for layer in (detector.rpn.objectness, detector.roi_heads.box):
        assert layer.bias.abs().sum() == 0
    losses = detector(IMAGES, TARGETS, seeds=[1, 2])
    assert list(losses) == LOSSES
    total(losses).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or name.endswith("bias") or backbone.startswith("vgg"), name
    detector.eval()
    with torch.no_grad():
        for found, image in zip(detector([*IMAGES, picture(50, 100)]), [*IMAGES, picture(50, 100)], strict=True):
            assert 0 < len(found) <= 100
            assert (found.scores.diff() <= 0).all()
            assert ((found.scores > 0.05) & (found.scores <= 1)).all()
            assert ((found.labels >= 1) & (found.labels <= 3)).all()
            assert (found.boxes >= 0).all()
            assert (found.boxes[:, 2] <= image.shape[2]).all()
            assert (found.boxes[:, 3] <= image.shape[1]).all()


def test_names_are_those_of_the_classifier():
    detector = make("resnet50")
    names = {n.removeprefix("backbone.") for n in detector.state_dict() if n.startswith("backbone.")}
    assert names == set(get_model("resnet50", 0, width=4).state_dict())
    others = {n.split(".")[0] for n in detector.state_dict() if not n.startswith("backbone.")}
    assert others == {"rpn", "roi_heads", "mean", "std"}


def test_siblings_start_as_in_faster_rcnn():
    detector = get_detector("resnet50", 80)
    heads = detector.roi_heads
    assert detector.rpn.conv.weight.shape == (512, 1024, 3, 3)
    assert detector.rpn.box.weight.shape == (36, 512, 1, 1)
    assert heads.classification.weight.shape == (81, 2048)
    assert heads.box.weight.shape == (320, 2048)
    for layer, std in (
        (detector.rpn.conv, 0.01),
        (detector.rpn.objectness, 0.01),
        (heads.classification, 0.01),
        (heads.box, 0.001),
    ):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert layer.bias.abs().max() == 0


def test_a_batchs_loss_is_the_mean_of_its_pictures_losses():
    detector = make(norm="frozen").double()
    both = detector(IMAGES, TARGETS, seeds=[5, 6])
    single = [detector([IMAGES[i]], [TARGETS[i]], seeds=[5 + i]) for i in range(2)]
    for name in LOSSES:
        assert both[name].dtype == torch.float64
        torch.testing.assert_close(both[name], (single[0][name] + single[1][name]) / 2, rtol=1e-10, atol=1e-12)
    other = detector(IMAGES, TARGETS, seeds=[7, 6])
    assert all(other[name] != both[name] for name in ("rpn_objectness", "classification"))


def test_a_picture_does_not_see_its_batch_mates():
    """Of whatever sizes: no padding of another picture, no other choice of anchors and regions."""
    detector = make(norm="frozen").double()
    images = [picture(64, 80, 1), picture(120, 50, 2), picture(64, 80, 3), picture(63, 77, 4)]
    targets = [TARGETS[0], objects((4, 30, 30, 100)), TARGETS[1], objects()]
    together = detector(images, targets, seeds=[1, 2, 3, 4])
    alone = [detector([i], [t], seeds=[s]) for s, (i, t) in enumerate(zip(images, targets, strict=True), 1)]
    assert list(together) == LOSSES
    for name in LOSSES:
        torch.testing.assert_close(together[name], sum(each[name] for each in alone) / 4, rtol=1e-10, atol=1e-12)
    detector.eval()
    with torch.no_grad():
        for found, image in zip(detector(images), images, strict=True):
            (expected,) = detector([image])
            torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-9, atol=1e-9)
            assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_losses_of_the_parts_are_those_of_the_whole(backbone: str):
    network = {"width": 4} if backbone == "resnet18" else {"width": 4, "dropout": 0}
    detector = make(backbone, norm="frozen", backbone_options=network)
    whole = detector(IMAGES, TARGETS, seeds=[1, 2])
    rpn = detector(IMAGES, TARGETS, seeds=[1, 2], part="rpn")
    assert list(rpn) == LOSSES[:2]
    proposals = [detector.propose(image, to_train=True) for image in IMAGES]
    regions = detector(IMAGES, TARGETS, seeds=[1, 2], proposals=proposals, part="regions")
    assert list(regions) == LOSSES[2:]
    for name, loss in (rpn | regions).items():
        torch.testing.assert_close(loss, whole[name])
    with pytest.raises(ValueError, match="proposals"):
        detector(IMAGES, TARGETS, seeds=[1, 2], part="regions")


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
@pytest.mark.parametrize("part", ["rpn", "regions"])
def test_a_part_trains_alone(backbone: str, part: str):
    """What has no use in the part is fixed, and all the rest gets a gradient."""
    detector = make(backbone, norm="frozen")
    detector.train_only(part)
    proposals = [detector.propose(image, to_train=True) for image in IMAGES]
    total(detector(IMAGES, TARGETS, seeds=[1, 2], proposals=proposals, part=part)).backward()
    learning = {name for name, p in detector.named_parameters() if p.requires_grad}
    assert learning == {name for name, p in detector.named_parameters() if p.grad is not None}
    regions = ("roi_heads.", "backbone.layer4.", "backbone.classifier.")
    others = regions if part == "rpn" else ("rpn.",)
    assert learning == {name for name, _ in detector.named_parameters() if not name.startswith(others)}
    detector.freeze(detector.split.shared_stages())
    learning = {name for name, p in detector.named_parameters() if p.requires_grad}
    own = ("rpn.",) if part == "rpn" else regions
    assert learning == {name for name, _ in detector.named_parameters() if name.startswith(own)}


def test_given_regions_take_the_place_of_proposals():
    detector = make(norm="frozen").eval()
    with torch.no_grad():
        own = [detector.propose(image, to_train=False) for image in IMAGES]
        for expected, found in zip(detector(IMAGES), detector(IMAGES, proposals=own), strict=True):
            torch.testing.assert_close(found.boxes, expected.boxes)
        (none,) = detector(IMAGES[:1], proposals=[own[0][:0]])
        assert len(none) == 0
        (one,) = detector(IMAGES[:1], proposals=[own[0][:1]])
        assert 0 < len(one) <= 3  # one region, a box of each class


def test_seeds_come_from_the_global_generator_if_not_given():
    detector = make(norm="frozen")

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return total(detector(IMAGES, TARGETS)).item()

    assert loss(1) == loss(1) != loss(2)


@pytest.mark.parametrize(
    "target", [objects(), objects((10, 10, 40, 40), ignore=True), objects((0, 0, 80, 64), ignore=True)]
)
@pytest.mark.parametrize("low", [0.0, 0.1])
def test_pictures_without_objects_train(target: Target, low: float):
    detector = make(roi=RoIOptions(background_iou_low=low))
    losses = detector([IMAGES[0], picture(90, 70)], [target, target], seeds=[1, 2])
    total(losses).backward()
    assert losses["rpn_box"] == 0
    assert losses["box"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_pictures_smaller_than_any_anchor_work(backbone: str):
    detector = make(backbone, anchor_scales=(128, 256), norm="frozen")
    images, targets = [picture(9, 12), picture(70, 40)], [objects((1, 1, 8, 8)), objects((5, 5, 30, 60))]
    losses = detector(images, targets, seeds=[1, 2])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["rpn_objectness"] > 0
    with torch.no_grad():
        assert len(detector.eval()(images)) == 2


def test_normalises_then_pads_with_zeros(monkeypatch: pytest.MonkeyPatch):
    detector = make(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0))
    monkeypatch.setattr(detector.split, "shared", lambda batch: batch)
    batch = detector.features([torch.full((3, 20, 40), 50, dtype=torch.uint8), picture(33, 17)])
    assert batch.shape == (2, 3, 48, 48)
    assert batch[0, :, 0, 0].tolist() == [40, 15, 5]
    assert (batch[0, :, :20, :40] == batch[0, :, :1, :1]).all()
    assert batch[0, :, 20:].abs().sum() == batch[0, :, :, 40:].abs().sum() == 0


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_frozen_stages_and_frozen_normalisation_never_change(norm: str):
    detector = make(norm=norm, freeze_stages=("conv1", "conv2"))
    before = copy.deepcopy(detector.state_dict())
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for step in range(2):
        optimizer.zero_grad()
        total(detector(IMAGES, TARGETS, seeds=[step, step + 9])).backward()
        optimizer.step()
    frozen_prefixes = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.")
    for name, value in detector.state_dict().items():
        is_norm = ".bn" in name or "downsample.1" in name
        fixed = name.startswith(frozen_prefixes) or (norm == "frozen" and is_norm) or name in ("mean", "std")
        assert torch.equal(value, before[name]) == fixed, name
    for name, parameter in detector.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen_prefixes), name


def test_frozen_normalisation_is_torchvisions():
    torch.manual_seed(0)
    ours, theirs = FrozenBatchNorm2d(6), misc.FrozenBatchNorm2d(6)
    for each in (ours.weight, ours.bias, ours.running_mean, ours.running_var):
        each.uniform_(0.5, 2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours(x.bfloat16()).dtype == torch.bfloat16


def test_no_gradient_flows_into_the_coordinates_of_proposals():
    detector = make(norm="frozen")
    losses = detector(IMAGES, TARGETS, seeds=[1, 2])
    (losses["classification"] + losses["box"]).backward()
    assert all(p.grad is None for p in detector.rpn.parameters())
    assert detector.backbone.conv1.weight.grad.abs().sum() > 0


def test_autocast_stays_close_to_float32():
    detector = make("resnet18", norm="frozen")
    plain = detector(IMAGES, TARGETS, seeds=[1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = detector(IMAGES, TARGETS, seeds=[1, 2])
        total(mixed).backward()
        detector.eval()
        with torch.no_grad():
            found = detector(IMAGES)
    assert found[0].boxes.dtype == torch.float32
    for name in ("rpn_objectness", "rpn_box"):  # the RoI losses depend on which proposals survive
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], plain[name], rtol=0.05, atol=0.01)


@pytest.mark.parametrize("pooling", ["roi_pool", "roi_align"])
def test_deterministic_mode_repeats_every_bit(pooling: str):
    def gradients() -> list[Tensor]:
        detector = make(roi=RoIOptions(pooling=pooling))
        total(detector(IMAGES, TARGETS, seeds=[1, 2])).backward()
        return [p.grad for p in detector.parameters()]

    torch.use_deterministic_algorithms(True)
    try:
        assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_copy_is_independent():
    detector = make(norm="frozen").eval()
    twin = copy.deepcopy(detector)
    with torch.no_grad():
        before = detector(IMAGES)[0].scores
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(detector(IMAGES)[0].scores, before)
    assert twin.roi_heads.split.network is twin.split.network is twin.backbone


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_learns_one_picture_by_heart(backbone: str):
    detector = make(backbone)
    if backbone == "vgg16":
        for dropout in (m for m in detector.modules() if isinstance(m, nn.Dropout)):
            dropout.p = 0.0
    optimizer = torch.optim.Adam(detector.parameters(), lr=2e-3)
    history = []
    for step in range(25):
        optimizer.zero_grad()
        loss = total(detector(IMAGES[:1], TARGETS[:1], seeds=[step]))
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-5:]) < 0.6 * sum(history[:5])


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize("backbone", ["resnet18", "vgg16_bn"])
def test_loads_a_classifier_without_its_last_layer(backbone: str, norm: str):
    classifier = get_model(backbone, 7, width=4)
    detector = make(backbone, norm=norm)
    detector.load_backbone(classifier.state_dict())
    for name, value in detector.backbone.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name]), name
    old = {k: v for k, v in classifier.state_dict().items() if not k.endswith("num_batches_tracked")}
    detector.load_backbone(old)


def test_weights_of_another_network_are_refused_in_one_line():
    detector = make("resnet18")
    state = get_model("resnet18", 7, width=4).state_dict()
    del state["layer2.0.conv1.weight"]
    state["conv1.weight"] = torch.zeros(4, 3, 3, 3)
    state["extra.bias"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        detector.load_backbone(state)
    message = str(error.value)
    assert "\n" not in message
    for part in ("layer2.0.conv1.weight", "conv1.weight (4, 3, 3, 3) instead of (4, 3, 7, 7)", "extra.bias"):
        assert part in message
    with pytest.raises(CheckpointError, match="missing"):
        detector.load_backbone(get_model("vgg16", 7, width=4).state_dict())


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_the_table_of_parameters_adds_up(backbone: str):
    detector = get_detector(backbone, 3, backbone_options={"width": 4})
    rows = [line.split() for line in describe_parameters(detector).splitlines()[1:]]
    numbers = {name: (int(t.replace(",", "")), int(f.replace(",", ""))) for name, t, f in rows}
    backbone_total = sum(p.numel() for p in get_model(backbone, 0, width=4).parameters())
    heads = {name: numbers.pop(name) for name in ("rpn", "roi")}
    assert sum(map(sum, numbers.values())) == backbone_total
    assert heads["roi"] == (sum(p.numel() for p in detector.roi_heads.parameters()), 0)
    assert numbers["conv1"][0] == numbers["conv2"][0] == 0 < numbers["conv3"][0]
    trainable = sum(t for t, _ in [*numbers.values(), *heads.values()])
    assert trainable == sum(p.numel() for p in detector.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "cifar_resnet20"}, "cifar_resnet20"),
        ({"backbone": "resnet19"}, "resnet19"),
        ({"norm": "live"}, "norm"),
        ({"freeze_stages": ("conv9",)}, "freeze_stages.*conv9"),
        ({"anchor_scales": ()}, "anchor_scales"),
        ({"anchor_ratios": (0.5, -1)}, "anchor_ratios"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (1.0,)}, "mean"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        get_detector(**({"backbone": "resnet18", "num_classes": 3, "backbone_options": {"width": 4}} | options))
