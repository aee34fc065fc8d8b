"""The part `cifar` of the benchmark: which networks and variants are compared, and what is reported of them."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from backbones.benchmark.cifar import PICTURES, UNIT, compare, random_pictures
from backbones.benchmark.curve import error_curves
from backbones.benchmark.jobs import rates_side_by_side
from backbones.benchmark.limits import Limits
from backbones.benchmark.measure import Plan
from backbones.benchmark.our_cifar import VARIANTS, OurTraining, Variant, resident_input
from backbones.benchmark.report import PartReport, Row
from backbones.benchmark.targets import TABLE_6, format_predictions, predictions
from backbones.data.cifar10 import CLASS_NAMES
from backbones.data.datasets import ClassificationDataset
from backbones.data.readers import read_split
from backbones.engine.step import why_not_captured, why_not_compiled
from backbones.errors import ConfigError
from backbones.models import get_model

DEFAULT_NETS = ["cifar_resnet20", "cifar_plain20"]
FULL_JOBS = [1, 2, 4, 8]
VariantName = Literal[
    "fp32",
    "fp32-compiled",
    "bf16",
    "bf16-compiled",
    "fp32-captured",
    "fp32-compiled-captured",
    "bf16-captured",
    "bf16-compiled-captured",
]


@dataclass(frozen=True)
class CifarOptions:
    """Training the networks of 4.2.

    Args:
        nets: the networks.
        variants: of our training; by default eager and compiled, fp32 and bf16, on a GPU also captured as CUDA graphs.
        compile_all: compile every network; on a CPU, where that takes a minute, else only the first.
        root: the folder of CIFAR-10; without it random pictures are drawn, on which speed does not depend.
        batch_size: pictures of a step.
        jobs: numbers of trainings to run side by side on the device, each a process; all together beside one alone.
        curve: train the first network so many steps both ways, ours in its fastest variant, and compare the test
            errors; needs `root`.
        seed: of weights, order and random pictures.
    """

    nets: list[str] = field(default_factory=lambda: list(DEFAULT_NETS))
    variants: list[VariantName] = field(default_factory=list)
    compile_all: bool = False
    root: str | None = None
    batch_size: int = 128
    jobs: list[int] = field(default_factory=list)
    curve: int = 0
    seed: int = 0


def full_options(options: CifarOptions, device: torch.device) -> CifarOptions:
    """All networks of Table 6 but the deepest, in all variants; on a GPU in three, and 1, 2, 4 and 8 side by side."""
    options = replace(options, nets=TABLE_6, compile_all=True)
    if device.type != "cuda":
        return options
    return replace(options, variants=["fp32", "bf16-captured", "bf16-compiled-captured"], jobs=FULL_JOBS)


def check_cifar(options: CifarOptions) -> None:
    """Refuses what can be refused before anything is measured.

    Raises:
        ConfigError: names the option.
    """
    if not options.nets:
        raise ConfigError("cifar.nets: name one or more")
    for name in options.nets:
        if not name.startswith("cifar_"):
            raise ConfigError(f"cifar.nets: {name} is no network for CIFAR-10; give cifar_resnet20, cifar_plain20, ...")
        with torch.device("meta"):
            get_model(name)
    if len(set(options.nets)) < len(options.nets) or len(set(options.variants)) < len(options.variants):
        raise ConfigError("cifar.nets, cifar.variants: name each once")
    if not 2 <= options.batch_size <= PICTURES:  # batch norm has no variance of one value
        raise ConfigError(f"cifar.batch_size {options.batch_size}: give 2 to {PICTURES}")
    if any(count < 1 for count in options.jobs):
        raise ConfigError(f"cifar.jobs {options.jobs}: give numbers of 1 or more")
    if options.curve < 0:
        raise ConfigError(f"cifar.curve {options.curve}: give 0 or more steps")
    if options.curve and not options.root:
        raise ConfigError("cifar.curve: needs real pictures; name the folder of CIFAR-10 with --cifar.root")


def benchmark_cifar(
    options: CifarOptions, *, plan: Plan, device: torch.device, threads: int, limits: Limits
) -> PartReport:
    """Compares the networks; then trainings side by side, and errors, where they are asked for.

    Raises:
        UserError: data that can't be read, a job that failed.
    """
    report = PartReport([])
    dataset = _pictures(options.root, options.seed)
    if len(dataset) < options.batch_size:
        raise ConfigError(f"cifar.batch_size {options.batch_size}: the data set has only {len(dataset)} pictures")
    fastest: dict[str, Variant] = {}
    for place, name in enumerate(options.nets):
        variants = choose_variants(options, device, first=place == 0, messages=report.messages)
        rows = compare(
            name,
            variants,
            dataset,
            plan=plan,
            batch_size=options.batch_size,
            device=device,
            seed=options.seed,
            limits=limits,
        )
        report.rows.extend(rows)
        fastest[name], _ = max(zip(variants, rows, strict=True), key=lambda pair: pair[1].ratio)
        if options.jobs:
            report.rows.extend(_side_by_side(name, fastest[name], options, plan, device, threads))
    report.texts.append(format_predictions(predictions()))
    report.numbers["predictions"] = [prediction.to_json() for prediction in predictions()]
    if options.curve and options.root:
        curves = error_curves(
            options.nets[0],
            fastest[options.nets[0]],
            options.root,
            steps=options.curve,
            batch_size=options.batch_size,
            device=device,
            seed=options.seed,
        )
        report.texts.append(str(curves))
        report.numbers["error_curves"] = curves.to_json()
    return report


def choose_variants(options: CifarOptions, device: torch.device, *, first: bool, messages: list[str]) -> list[Variant]:
    """The variants that were asked for; by default those that suit the device and the time.

    On a CPU compiling takes a minute for each network and precision: without `compile_all` only the first is compiled.

    Args:
        first: whether the network is the first of several.
        messages: what can't be done here is added to them, once.

    Raises:
        ConfigError: nothing is left.
    """
    gpu = device.type == "cuda"
    wanted = [VARIANTS[name] for name in options.variants] or [
        variant
        for variant in VARIANTS.values()
        if (gpu or not variant.captured) and (gpu or first or options.compile_all or not variant.compiled)
    ]
    compiled = why_not_compiled(device) if any(variant.compiled for variant in wanted) else None
    captured = why_not_captured(device, 1)
    chosen = []
    for variant in wanted:
        reason = (variant.compiled and compiled) or (variant.captured and captured)
        message = f"{variant.name}: left out: {reason}"
        if not reason:
            chosen.append(variant)
        elif message not in messages:
            messages.append(message)
    if not chosen:
        raise ConfigError(f"cifar.variants: none of them runs here; {messages[-1]}")
    return chosen


def _pictures(root: str | None, seed: int) -> ClassificationDataset:
    return read_split("cifar10", root, "train", None, 32, 0) if root else random_pictures(PICTURES, seed)


def _side_by_side(
    name: str, variant: Variant, options: CifarOptions, plan: Plan, device: torch.device, threads: int
) -> list[Row]:
    """A row for each number of jobs: the speed of all together, beside that of one alone."""
    arguments = (name, variant, options.root, options.seed, options.batch_size, device)
    counts = list(dict.fromkeys([1, *options.jobs]))
    rates = {count: rates_side_by_side(make_job, arguments, jobs=count, plan=plan, threads=threads) for count in counts}
    return [
        Row("cifar", f"{name} {variant.name}, {count} side by side / 1", UNIT, rates[count], rates[1])
        for count in counts
        if count in options.jobs
    ]


def make_job(
    name: str, variant: Variant, root: str | None, seed: int, batch_size: int, device: torch.device
) -> OurTraining:
    """Our training, in a process of its own."""
    dataset = _pictures(root, seed)
    torch.manual_seed(seed)
    source = resident_input(dataset, name, device)
    model = get_model(name, len(CLASS_NAMES))
    return OurTraining(model, source, variant, size=len(dataset), batch_size=batch_size, device=device)
