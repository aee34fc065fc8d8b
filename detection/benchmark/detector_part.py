"""The part `detector` of the benchmark: ours beside torchvision's Faster R-CNN, both on ResNet-50 C4.

Both have the same weights, pictures, objects and anchors, as many proposals before and after non-maximum suppression,
regions and detections, the same pooling and precision. Theirs gets pictures as floats that need no resizing; ours gets
bytes. Detections end on the CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from backbones.analysis.complexity import complexity
from backbones.benchmark.floor import StepCost, floor_seconds, step_cost
from backbones.benchmark.limits import Limits
from backbones.benchmark.measure import Plan, Segment, Stopwatch, interleave, spread
from backbones.benchmark.memory import with_peak_memory
from backbones.benchmark.report import PartReport, Row
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.step import why_not_compiled
from backbones.errors import ConfigError
from detection.benchmark.their_detector import ANCHOR_RATIOS, ANCHOR_SCALES, torchvision_detector
from detection.models import FasterRCNN, RoIOptions, RPNOptions, get_detector
from detection.models.frozen_bn import FrozenBatchNorm2d
from detection.models.roi_heads import Pooling
from detection.structures import Target

UNIT = "images/s"
CLASSES = 20
OBJECTS = 6  # of a picture
BACKBONE = {"stride_in": "3x3"}  # as torchvision's
Work = Literal["training", "inference"]
Way = Callable[[], object]


@dataclass(frozen=True)
class DetectorPartOptions:
    """What to compare.

    Args:
        height, width: of the pictures.
        batch_size: pictures of a training step, and of an inference.
        precisions: of both ways.
        poolings: of regions.
        pre_nms: boxes that go into non-maximum suppression, in training; half as many in testing.
        post_nms_train: proposals that are left of them.
        post_nms_test: likewise.
        rois_per_image: regions trained on.
        channels_last: add rows beside torchvision's in channels_last.
        compiled: add rows of training with our shared layers compiled (`train.compile`).
        seed: of weights, pictures and objects.
    """

    height: int = 256
    width: int = 384
    batch_size: int = 2
    precisions: list[Precision] = field(default_factory=lambda: ["fp32", "bf16"])
    poolings: list[Pooling] = field(default_factory=lambda: ["roi_align"])
    pre_nms: int = 2000
    post_nms_train: int = 500
    post_nms_test: int = 64
    rois_per_image: int = 32
    channels_last: bool = False
    compiled: bool = False
    seed: int = 0


def full_options(options: DetectorPartOptions, device: torch.device) -> DetectorPartOptions:
    """The paper's sizes and numbers (4.3, Faster R-CNN), both ways to pool regions."""
    return replace(
        options,
        height=600,
        width=1000,
        batch_size=8 if device.type == "cuda" else options.batch_size,
        poolings=["roi_align", "roi_pool"],
        pre_nms=12000,
        post_nms_train=2000,
        post_nms_test=300,
        rois_per_image=64,
        channels_last=True,
        compiled=device.type == "cuda",
    )


def check_detector(options: DetectorPartOptions) -> None:
    """Refuses what can be refused before anything is measured.

    Raises:
        ConfigError: names the option.
    """
    for name, least in (("height", 64), ("width", 64), ("batch_size", 1), ("pre_nms", 2)):
        if getattr(options, name) < least:
            raise ConfigError(f"{name} {getattr(options, name)}: give {least} or more")
    for name, known in (("precisions", ("fp32", "bf16")), ("poolings", ("roi_align", "roi_pool"))):
        values = getattr(options, name)
        if not values or not set(values) <= set(known) or len(set(values)) < len(values):
            raise ConfigError(f"{name} {values}: give {' and '.join(known)}, or one of them")
    _rpn_options(options)
    RoIOptions(rois_per_image=options.rois_per_image)


def benchmark_detector(
    options: DetectorPartOptions, *, plan: Plan, device: torch.device, threads: int, limits: Limits
) -> PartReport:
    """Training and inference in each precision; a row for each, and for each way of torchvision's."""
    report = PartReport([])
    if options.compiled and (reason := why_not_compiled(device)):
        report.messages.append(f"detector compiled: left out: {reason}")
        options = replace(options, compiled=False)
    for pooling in options.poolings:
        for precision in options.precisions:
            for work in ("training", "inference"):
                report.rows.extend(_compare(work, precision, pooling, options, plan, device, limits))
    return report


def _compare(
    work: Work,
    precision: Precision,
    pooling: Pooling,
    options: DetectorPartOptions,
    plan: Plan,
    device: torch.device,
    limits: Limits,
) -> list[Row]:
    images, targets = random_batch(options)
    prepare = _training if work == "training" else _inference
    title = f"resnet50-c4 {work} {precision} {pooling}"
    ours = {title: make_detector(options, pooling).move_to(device)}
    if options.compiled and work == "training":
        ours[f"{title} compiled"] = make_detector(options, pooling).move_to(device)
        ours[f"{title} compiled"].compile_layers()
    theirs = {"torchvision": torchvision_detector(ours[title], (options.height, options.width)).to(device)}
    if options.channels_last:
        copy = torchvision_detector(ours[title], (options.height, options.width)).to(device)
        theirs["torchvision channels_last"] = copy.to(memory_format=torch.channels_last)
    ways = {
        name: prepare(detector, _our_call(images, targets, work), precision, device) for name, detector in ours.items()
    } | {
        name: prepare(detector, _their_call(images, targets, work, device), precision, device)
        for name, detector in theirs.items()
    }
    memory = {}
    regions = count_regions(ours[title], ways[title])
    for name, way in ways.items():
        way()
        _, memory[name] = with_peak_memory(way, device)
    segments = {name: partial(_segment, way, plan, options.batch_size, device) for name, way in ways.items()}
    rates = interleave(segments, plan.rounds, description=title)
    if len(ours) > 1:
        torch.compiler.reset()  # it keeps a few compiled networks only
    rows = []
    for own in ours:
        cost = least_cost(ours[title], work, precision, options, regions)
        details, notes = _beside_limit(spread(rates[own]).median, cost, precision, options, limits)
        for other in theirs:
            name, own_notes = (own, notes) if other == "torchvision" else (f"{own} / {other}", [])
            rows.append(
                Row("detector", name, UNIT, rates[own], rates[other], memory[own], memory[other], details, own_notes)
            )
    return rows


def _rpn_options(options: DetectorPartOptions) -> RPNOptions:
    return RPNOptions(
        channels=1024,  # as torchvision's, as many as conv4 has
        ignore_border_anchors=False,
        pre_nms_train=options.pre_nms,
        pre_nms_test=options.pre_nms // 2,
        post_nms_train=options.post_nms_train,
        post_nms_test=options.post_nms_test,
        min_size=1e-3,
    )


def make_detector(options: DetectorPartOptions, pooling: Pooling) -> FasterRCNN:
    """Ours, with weights drawn so that activations keep their size without batch statistics."""
    torch.manual_seed(options.seed)
    detector = get_detector(
        "resnet50",
        CLASSES,
        backbone_options=BACKBONE,
        anchor_scales=ANCHOR_SCALES,
        anchor_ratios=ANCHOR_RATIOS,
        rpn=_rpn_options(options),
        roi=RoIOptions(pooling=pooling, rois_per_image=options.rois_per_image, background_iou_low=0.0),
    )
    for name, module in detector.backbone.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith("bn3"):
            module.weight.fill_(0.1)
    return detector


def random_batch(options: DetectorPartOptions) -> tuple[list[Tensor], list[Target]]:
    """Pictures (3, height, width) uint8 of noise, each with objects that lie anywhere."""
    generator = torch.Generator().manual_seed(options.seed)
    shape = 3, options.height, options.width
    images, targets = [], []
    for _ in range(options.batch_size):
        images.append(torch.randint(256, shape, generator=generator, dtype=torch.uint8))
        corners = torch.rand(OBJECTS, 2, 2, generator=generator).sort(dim=1).values * 0.8
        corners[:, 1] += 0.2  # none is narrower than a fifth of the picture
        scale = torch.tensor([options.width, options.height])
        labels = torch.randint(1, CLASSES + 1, (OBJECTS,), generator=generator)
        targets.append(Target((corners * scale).flatten(1), labels, torch.zeros(OBJECTS, dtype=torch.bool)))
    return images, targets


def _our_call(images: list[Tensor], targets: list[Target], work: Work) -> Callable[[nn.Module], Any]:
    if work == "inference":
        return lambda detector: [found.to("cpu") for found in detector(images)]
    seeds = list(range(len(images)))
    return lambda detector: detector(images, targets, seeds)


def _their_call(
    images: list[Tensor], targets: list[Target], work: Work, device: torch.device
) -> Callable[[nn.Module], Any]:
    floats = [image / 255 for image in images]
    objects = [{"boxes": target.boxes, "labels": target.labels} for target in targets]

    def call(detector: nn.Module) -> Any:
        pictures = [image.to(device) for image in floats]
        if work == "training":
            return detector(pictures, [{key: value.to(device) for key, value in each.items()} for each in objects])
        return [{key: value.cpu() for key, value in each.items()} for each in detector(pictures)]

    return call


def _training(detector: nn.Module, call: Callable[[nn.Module], Any], precision: Precision, device: torch.device) -> Way:
    """A step: forward and backward pass, and the update."""
    detector.train()
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, weight_decay=5e-4)  # hardly learns: it can't diverge

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            loss = torch.stack(list(call(detector).values())).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _inference(
    detector: nn.Module, call: Callable[[nn.Module], Any], precision: Precision, device: torch.device
) -> Way:
    detector.eval()

    def detect() -> Any:
        with torch.inference_mode(), autocast(precision, device):
            return call(detector)

    return detect


def _segment(way: Way, plan: Plan, batch_size: int, device: torch.device) -> Segment:
    watch = Stopwatch(device)
    for _ in range(plan.discard):
        way()
    watch.start()
    for _ in range(plan.steps):
        way()
    return Segment(plan.steps * batch_size, watch.stop())


def count_regions(detector: FasterRCNN, way: Way) -> int:
    """How many regions the last stage is run on, of all pictures of a batch together."""
    counts: list[int] = []
    layer = detector.split.region_layers()[0]
    with layer.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0]))):
        way()
    return sum(counts)


def _beside_limit(
    rate: float, cost: StepCost, precision: Precision, options: DetectorPartOptions, limits: Limits
) -> tuple[dict[str, Any], list[str]]:
    """A batch's seconds beside the least that this machine could take: numbers for a row, and a note."""
    seconds = options.batch_size / rate
    floor, bound = floor_seconds(cost, operations_per_second=limits.flops[precision], bytes_per_second=limits.bandwidth)
    share = floor / seconds
    details = {"step_seconds": seconds, "floor_seconds": floor, "bound": bound, "share_of_limit": share}
    return details, [f"{seconds:.2f} s a batch, floor {floor:.2f} s ({bound}): {share:.0%} of the limit"]


def least_cost(
    detector: FasterRCNN, work: Work, precision: Precision, options: DetectorPartOptions, regions: int
) -> StepCost:
    """What convolutions take at least, by the model of `backbones.benchmark.floor`; the rest is free.

    In training, fixed stages have a forward pass only, which is a third of the operations and two of the five passes
    over what layers put out.
    """
    training, channels = work == "training", detector.split.channels
    stages = detector.backbone.stages()
    fixed, learning, region = (
        [module for name in names for module in stages[name].modules]
        for names in (("conv1", "conv2"), ("conv3", "conv4"), ("conv5",))
    )
    height, width, pooled = options.height // 4, options.width // 4, detector.roi_heads.pool_size
    parts = [
        (fixed, (3, options.height, options.width), options.batch_size, False),
        ([*learning, detector.rpn.conv], (channels // 4, height, width), options.batch_size, training),
        (region, (channels, pooled, pooled), regions, training),
    ]
    operations = nbytes = 0.0
    for modules, shape, copies, learns in parts:
        counted = complexity(nn.Sequential(*modules), shape)
        cost = step_cost(counted, batch_size=copies, precision=precision)
        operations += cost.operations if learns else cost.operations / 3
        nbytes += cost.bytes if learns else cost.bytes * 2 / 5
    return StepCost(operations, nbytes)
