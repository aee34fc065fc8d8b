"""The part `train` of the benchmark: the training step of ImageNet networks, ours beside torchvision's.

All pictures are on the device, so that nothing but the step is measured. A network of ours is the same function as
torchvision's of its name, from the same weights. It stands beside two others: torchvision's network in our loop, which
compares the networks, and torchvision's network in the usual loop, which compares the whole.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from backbones.analysis.complexity import Complexity, complexity
from backbones.benchmark.floor import floor_seconds, step_cost
from backbones.benchmark.limits import Limits
from backbones.benchmark.measure import Plan, interleave, spread
from backbones.benchmark.memory import with_peak_memory
from backbones.benchmark.our_cifar import Variant
from backbones.benchmark.report import PartReport, Row
from backbones.benchmark.steps import OurSteps, UsualSteps
from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.engine.acceleration import Precision
from backbones.engine.step import why_not_captured, why_not_compiled
from backbones.errors import ConfigError
from backbones.models import get_model
from backbones.models.resnet import BASIC_DEPTHS, BOTTLENECK_DEPTHS
from backbones.models.stages import StagedNetwork
from backbones.models.vgg import CONVOLUTIONS
from backbones.scores import normalize

BOTTLENECKS = [f"resnet{depth}" for depth in BOTTLENECK_DEPTHS]
# What torchvision has too, by the same name.
SHARED = (
    [f"resnet{d}" for d in BASIC_DEPTHS] + BOTTLENECKS + [f"vgg{d}{bn}" for d in CONVOLUTIONS for bn in ("", "_bn")]
)
CLASSES = 1000
_RATE = 1e-3  # low, so that random labels teach nothing that ends in infinities


class Pictures(NamedTuple):
    """A batch: pictures (B, S, S, 3) uint8 and their labels (B,), on the device."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainPartOptions:
    """What to compare.

    Args:
        nets: of ImageNet, that torchvision has too.
        precisions: of the forward passes: fp32, bf16 (mixed).
        batch_size: pictures of a step.
        input_size: their height and width.
        compiled: our loop with `train.compile` too.
        captured: our loop with `train.capture` too, on GPUs.
        seed: of weights, pictures and labels.
    """

    nets: list[str] = field(default_factory=lambda: ["resnet50", "vgg16"])
    precisions: list[Precision] = field(default_factory=lambda: ["fp32", "bf16"])
    batch_size: int = 4
    input_size: int = 128
    compiled: bool = False
    captured: bool = False
    seed: int = 0


def full_options(options: TrainPartOptions, device: torch.device) -> TrainPartOptions:
    """The paper's size of pictures; on a GPU its batch (3.4) in bf16, compiled and captured too."""
    if device.type != "cuda":
        return replace(options, input_size=224)
    return replace(options, precisions=["bf16"], batch_size=256, input_size=224, compiled=True, captured=True)


def check_train(options: TrainPartOptions) -> None:
    """Refuses what can be refused before anything is measured.

    Raises:
        ConfigError: names the option.
    """
    for name, values in (("nets", options.nets), ("precisions", options.precisions)):
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{name} {values}: name one or more, each once")
    for net in options.nets:
        if net not in SHARED:
            raise ConfigError(f"nets: torchvision has no {net}; give {', '.join(SHARED)}")
    for precision in options.precisions:
        if precision not in ("fp32", "bf16"):
            raise ConfigError(f"precisions: {precision} is none of fp32, bf16")
    if options.batch_size < 2:  # batch norm has no variance of one value
        raise ConfigError(f"batch_size {options.batch_size}: give 2 or more")
    if options.input_size < 32:  # VGG halves it five times
        raise ConfigError(f"input_size {options.input_size}: give 32 or more pixels")


def benchmark_train(
    options: TrainPartOptions, *, plan: Plan, device: torch.device, threads: int, limits: Limits
) -> PartReport:
    """Compares the networks in each precision, and in each variant of our loop that runs here.

    Args:
        threads: of this process already; not used.
    """
    report = PartReport([])
    variants = choose_variants(options, device, report.messages)
    for name in options.nets:
        for variant in variants:
            report.rows.extend(compare(name, variant, options, plan=plan, device=device, limits=limits))
            gc.collect()  # a captured graph keeps all of a step's memory
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return report


def choose_variants(options: TrainPartOptions, device: torch.device, messages: list[str]) -> list[Variant]:
    """The variants of our loop; what can't be had here is left out, and `messages` say why."""
    compiled = why_not_compiled(device) if options.compiled else "not asked for"
    captured = why_not_captured(device, 1) if options.captured else "not asked for"
    for name, reason in (("compiled", compiled), ("captured", captured)):
        if getattr(options, name) and reason:
            messages.append(f"train {name}: left out: {reason}")
    return [
        Variant(precision, with_compile, with_capture)
        for precision in options.precisions
        for with_compile in ([False] if compiled else [False, True])
        for with_capture in ([False] if captured else [False, True])
    ]


def network_pair(name: str, seed: int) -> tuple[StagedNetwork, nn.Module]:
    """Our network and torchvision's, the same function of the same weights."""
    torch.manual_seed(seed)
    ours = our_network(name)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(num_classes=CLASSES)
    theirs.to_empty(device="cpu").load_state_dict(ours.state_dict())
    return ours, theirs


def our_network(name: str) -> StagedNetwork:
    """Ours as torchvision has it: bottlenecks with their stride in the 3x3 convolution, not in the 1x1 before it."""
    return get_model(name, CLASSES, stride_in="3x3") if name in BOTTLENECKS else get_model(name, CLASSES)


def compare(
    name: str, variant: Variant, options: TrainPartOptions, *, plan: Plan, device: torch.device, limits: Limits
) -> list[Row]:
    """Trains in three ways in turn; our network's row beside torchvision's in our loop, and beside the usual loop."""
    ways = _ready_ways(name, variant, options, device)
    memory = {}
    for key, way in ways.items():  # warm-up
        way.segment(1, 1)
        way.forget()  # so that gradients count, and a captured step's memory, which is taken in its capture
        _, memory[key] = with_peak_memory(partial(way.segment, 1, 1), device)
    segments = {key: partial(way.segment, plan.steps, plan.discard) for key, way in ways.items()}
    rates = interleave(segments, plan.rounds, description=f"{name} {variant.name}")
    if variant.compiled:
        torch.compiler.reset()  # it keeps a few compiled networks only
    details, note = beside_limit(rates["ours"], name, variant.precision, options, limits)
    return [
        Row(
            "train",
            f"{name} {variant.name} / torchvision in {loop}",
            "images/s",
            rates["ours"],
            rates[key],
            memory["ours"],
            memory[key],
            details,
            [note] if place == 0 else [],
        )
        for place, (key, loop) in enumerate((("theirs", "our loop"), ("usual", "the usual loop")))
    ]


def _ready_ways(
    name: str, variant: Variant, options: TrainPartOptions, device: torch.device
) -> dict[str, OurSteps | UsualSteps]:
    ours, theirs = network_pair(name, options.seed)
    _, usual = network_pair(name, options.seed)
    pixels, labels = random_batch(options, device)
    mean, std = (torch.tensor(value, device=device) for value in (IMAGENET_MEAN, IMAGENET_STD))

    def prepare(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return normalize(batch[0], mean, std), batch[1]

    def in_our_loop(network: nn.Module) -> OurSteps:
        batch = Pictures(pixels, labels)
        return OurSteps(network, batch, prepare, variant, size=options.batch_size, device=device, lr=_RATE)

    images, _ = prepare((pixels, labels))
    return {
        "ours": in_our_loop(ours),
        "theirs": in_our_loop(theirs),
        "usual": UsualSteps(usual, images, labels, precision=variant.precision, lr=_RATE),
    }


def random_batch(options: TrainPartOptions, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pictures (B, S, S, 3) uint8 and labels (B,) int64 on the device; speed does not depend on them."""
    rng = np.random.default_rng(options.seed)
    shape = (options.batch_size, options.input_size, options.input_size, 3)
    pixels, labels = rng.integers(256, size=shape, dtype=np.uint8), rng.integers(CLASSES, size=options.batch_size)
    return torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device)


def beside_limit(
    rates: Sequence[float], name: str, precision: str, options: TrainPartOptions, limits: Limits
) -> tuple[dict[str, Any], str]:
    """Our step's seconds beside the least that this machine could take: numbers for a row, and a note."""
    step = options.batch_size / spread(rates).median
    floor, bound = floor_seconds(
        step_cost(network_cost(name, options.input_size), batch_size=options.batch_size, precision=precision),
        operations_per_second=limits.flops[precision],
        bytes_per_second=limits.bandwidth,
    )
    details = {"step_seconds": step, "floor_seconds": floor, "bound": bound, "share_of_limit": floor / step}
    return details, f"a step takes {step:.3g} s, floor {floor:.3g} s ({bound}): {floor / step:.0%} of the limit"


def network_cost(name: str, input_size: int) -> Complexity:
    """What our network as torchvision has it costs for one picture."""
    with torch.device("meta"):
        return complexity(our_network(name), (3, input_size, input_size))
