"""The command `benchmark`: each part of the project beside the usual way, in the same run."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace

from backbones.benchmark.cifar_part import CifarOptions
from backbones.benchmark.input_part import InputPartOptions
from backbones.benchmark.limits import Limits, probe_limits
from backbones.benchmark.measure import Plan, pinned
from backbones.benchmark.report import PartReport, format_rows, merge
from backbones.benchmark.train_part import TrainPartOptions
from backbones.cli import run_command
from backbones.engine.distributed import join_world
from backbones.engine.machine import describe_machine
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import ConfigError
from detection.benchmark.coco_part import CocoOptions
from detection.benchmark.detector_part import DetectorPartOptions
from detection.benchmark.parts import PARTS, Part

PartName = Literal["input", "train", "cifar", "detector", "coco"]


@dataclass
class BenchmarkOptions:
    """Measures the speed and memory of parts of the project beside the usual way, in turn and in the same run.

    A row gives the median of either, and the median and quartiles of the rounds' ratios (above 1: ours is faster), and
    which share it is of what this machine can do at most, which is measured too. Each part has options of its own.
    Example: python tools/benchmark.py cifar coco --cifar.nets '[cifar_resnet20]' --output benchmark.json

    Args:
        parts: input: training pictures from JPEG files, beside torchvision's ImageFolder with PIL and its tensor path.
            train: a training step of ImageNet's networks, beside torchvision's. cifar: training the networks of 4.2,
            data and augmentation included, beside a DataLoader with PIL transforms and an eager fp32 loop. detector:
            Faster R-CNN beside torchvision's. coco: from an annotation file and a results file to COCO's twelve
            numbers, beside pycocotools and faster-coco-eval, and whether they are equal.
        output: a JSON file for the rows, the limits and the machine.
        full: sizes for a GPU: other defaults of the options of each part.
        rounds: segments of each way.
        steps: timed steps of a segment; by default 1 to 4 on a CPU, 5 to 100 on a GPU. (coco: a segment is all
            pictures.)
        discard: untimed steps before them; by default 1 or 2 on a CPU, 2 to 20 on a GPU. The usual loop leaves out at
            least as many as its loading processes have batches ready.
        threads: of all ways; PyTorch's own number by default. (input: one, but where it says workers.)
        device: auto takes a GPU where there is one. (input and coco are of CPUs.)
        seed: of every part that has one.
        input: of this part.
        train: of this part.
        cifar: of this part.
        detector: of this part.
        coco: of this part.
    """

    parts: list[PartName]
    output: str | None = None
    full: bool = False
    rounds: int = 5
    steps: int | None = None
    discard: int | None = None
    threads: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    input: InputPartOptions = field(default_factory=InputPartOptions)
    train: TrainPartOptions = field(default_factory=TrainPartOptions)
    cifar: CifarOptions = field(default_factory=CifarOptions)
    detector: DetectorPartOptions = field(default_factory=DetectorPartOptions)
    coco: CocoOptions = field(default_factory=CocoOptions)


def benchmark(options: BenchmarkOptions) -> None:
    """Checks all parts, then measures one after the other, prints their rows and writes the JSON file.

    Raises:
        UserError: an option is wrong, or data can't be read.
    """
    if not options.parts:
        raise ConfigError("parts: name one or more")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("benchmark runs in one process: start it without torchrun")
    with join_world(options.device) as world:
        device = world.device
    chosen = list(dict.fromkeys(options.parts))
    plans = {name: _plan(options, PARTS[name], device) for name in chosen}
    threads = torch.get_num_threads() if options.threads is None else options.threads
    if threads < 1:
        raise ConfigError(f"threads {threads}: give 1 or more")
    for name in chosen:
        PARTS[name].check(getattr(options, name))
    if options.output:
        check_writable(Path(options.output))

    facts: dict[str, Any] = {
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    facts |= describe_machine(("torch", "torchvision", "numpy", "pillow"))
    facts |= {"device": device.type, "threads": threads}
    reports: list[PartReport] = []
    with pinned(threads), _shown_at_the_end(reports):
        limits = probe_limits(device)
        print(_describe(device, threads, limits), flush=True)
        facts["limits"] = asdict(limits)
        for name in chosen:
            part = getattr(options, name)
            plan = plans[name]
            facts |= {f"{name}_options": asdict(part), f"{name}_plan": asdict(plan)}
            print(f"{name}: {plan.rounds} round(s) of {plan.steps} timed step(s) of each way", flush=True)
            reports.append(PARTS[name].run(part, plan=plan, device=device, threads=threads, limits=limits))
            if options.output:
                write_json(Path(options.output), facts | merge(reports).to_json())


@contextmanager
def _shown_at_the_end(reports: list[PartReport]) -> Iterator[None]:
    """Prints the parts that are done, also when one fails or is stopped."""
    try:
        yield
    finally:
        if reports:
            report = merge(reports)
            print("\n".join(["", format_rows(report.rows), *(f"\n{text}" for text in report.texts), *report.messages]))


def _plan(options: BenchmarkOptions, part: Part, device: torch.device) -> Plan:
    """How much of a part is measured."""
    gpu = device.type == "cuda"
    steps, discard = (part.gpu_steps, part.gpu_discard) if gpu else (part.steps, part.discard)
    plan = Plan(
        options.rounds,
        steps if options.steps is None else options.steps,
        discard if options.discard is None else options.discard,
    )
    for name, value, least in (("rounds", plan.rounds, 1), ("steps", plan.steps, 1), ("discard", plan.discard, 0)):
        if value < least:
            raise ConfigError(f"{name} {value}: give {least} or more")
    return plan


def part_defaults(given: Namespace) -> dict[str, Any]:
    """What `--seed` and `--full` make the defaults of the parts' own options: those that are given stay as they are."""
    gpu = given.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    defaults: dict[str, Any] = {}
    for name, part in PARTS.items():
        options = part.full_options(part.options(), device) if given.full else part.options()
        values = asdict(options)
        if "seed" in values:
            values["seed"] = given.seed
        defaults |= {f"{name}.{key}": value for key, value in values.items()}
    return defaults


def _describe(device: torch.device, threads: int, limits: Limits) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {threads} thread(s)"
    products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in limits.flops.items())
    return f"{name}: matrix products {products}; memory {limits.bandwidth / 1e9:,.1f} GB/s"


def main(argv: Sequence[str] | None = None) -> None:
    """The command `benchmark`."""
    run_command(BenchmarkOptions, benchmark, positional="parts", defaults=part_defaults, argv=argv)


if __name__ == "__main__":
    main()
