"""The command `benchmark`: each part of the project beside the usual way, in the same run."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from backbones.benchmark.cifar_part import DEFAULT_NETS, CifarOptions, benchmark_cifar, check_cifar, full_options
from backbones.benchmark.limits import Limits, probe_limits
from backbones.benchmark.measure import Plan, pinned
from backbones.benchmark.report import PartReport, format_rows, merge
from backbones.cli import run_command
from backbones.engine.distributed import join_world
from backbones.engine.run import check_writable, describe_machine, write_json
from backbones.errors import ConfigError
from detection.benchmark.coco_part import CocoOptions, benchmark_coco, check_coco

Part = Literal["cifar", "coco"]
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


def benchmark(
    parts: list[Part],
    output: str | None = None,
    full: bool = False,
    nets: list[str] = DEFAULT_NETS,
    variants: list[VariantName] = [],  # noqa: B006 (read by the command line, never changed)
    root: str | None = None,
    batch_size: int = 128,
    jobs: list[int] = [],  # noqa: B006
    curve: int = 0,
    rounds: int = 5,
    steps: int | None = None,
    discard: int | None = None,
    threads: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
    pictures: int | None = None,
) -> None:
    """Measures the speed and memory of parts of the project beside the usual way, in turn and in the same run.

    A row gives the median of either, and the median and quartiles of the rounds' ratios (above 1: ours is faster). Of
    cifar, what the machine could do at most is measured too. Options are for all parts but where one is named.
    Example: python tools/benchmark.py cifar coco --output benchmark.json

    Args:
        parts: cifar: training the networks of 4.2, data and augmentation included, beside a DataLoader with PIL
            transforms and an eager fp32 loop; the same network in both. coco: from an annotation file and a results
            file to COCO's twelve numbers, beside pycocotools and faster-coco-eval, and whether they are equal.
        output: a JSON file for the rows, the limits and the machine.
        full: cifar: all networks of Table 6 up to 110 layers in all variants; on a GPU also 1, 2, 4 and 8 side by side.
            coco: 5,000 pictures.
        nets: cifar: the networks.
        variants: cifar: of our training; by default eager and compiled, fp32 and bf16, on a GPU also captured as CUDA
            graphs. On a CPU, where compiling takes a minute, the first network only is compiled without --full.
        root: cifar: the folder of CIFAR-10; without it random pictures are drawn, on which speed does not depend.
        batch_size: cifar: pictures of a step.
        jobs: cifar: numbers of trainings to run side by side on the device, each a process; all together beside one
            alone.
        curve: cifar: train the first network so many steps both ways, ours in its fastest variant, and compare the test
            errors; needs --root.
        rounds: segments of each way.
        steps: cifar: timed steps of a segment; by default 4 on a CPU, 100 on a GPU.
        discard: cifar: untimed steps before them; by default 2 on a CPU, 20 on a GPU. The usual loop leaves out at
            least as many as its loading processes have batches ready.
        threads: of both ways; PyTorch's own number by default.
        device: cifar: auto takes a GPU where there is one.
        seed: of weights, order and random pictures; of coco, of the files.
        pictures: coco: how many, with 100 detections each; by default 1,000.
    """
    if not parts:
        raise ConfigError("parts: name one or more")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("benchmark runs in one process: start it without torchrun")
    with join_world(device) as world:
        where = world.device
    gpu = where.type == "cuda"
    plan = Plan(rounds, _chosen(steps, 100 if gpu else 4), _chosen(discard, 20 if gpu else 2))
    threads = _chosen(threads, torch.get_num_threads())
    _check(plan, threads)
    cifar = CifarOptions(nets, list(variants), root, batch_size, jobs, curve, seed)
    cifar = full_options(cifar, where) if full else cifar
    coco = CocoOptions(_chosen(pictures, 5000 if full else 1000), seed)
    every = {
        "cifar": _Part(partial(check_cifar, cifar), partial(_run_cifar, cifar, plan, where, threads)),
        "coco": _Part(partial(check_coco, coco), partial(_run_coco, coco, rounds)),
    }
    chosen = [every[name] for name in dict.fromkeys(parts)]
    for part in chosen:
        part.check()
    if output:
        check_writable(Path(output))

    facts: dict[str, Any] = {
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    facts |= describe_machine(("torch", "torchvision", "numpy", "pillow"))
    facts |= {"device": where.type, "threads": threads, "plan": asdict(plan)}
    reports = []
    with pinned(threads):
        for part in chosen:
            report, more = part.run()
            reports.append(report)
            facts |= more
    report = merge(reports)
    print("\n".join(["", format_rows(report.rows), *(f"\n{text}" for text in report.texts)]))
    for message in report.messages:
        print(message)
    if output:
        write_json(Path(output), facts | report.to_json())


@dataclass(frozen=True)
class _Part:
    """A part of the benchmark.

    Args:
        check: refuses what can be refused before anything is measured.
        run: measures, and gives its report and facts for the JSON file.
    """

    check: Callable[[], None]
    run: Callable[[], tuple[PartReport, dict[str, Any]]]


def _run_cifar(
    options: CifarOptions, plan: Plan, device: torch.device, threads: int
) -> tuple[PartReport, dict[str, Any]]:
    limits = probe_limits(device)
    print(_describe(device, threads, plan, limits), flush=True)
    report = benchmark_cifar(options, plan=plan, device=device, threads=threads, limits=limits)
    return report, {"limits": asdict(limits), "cifar_options": asdict(options)}


def _run_coco(options: CocoOptions, rounds: int) -> tuple[PartReport, dict[str, Any]]:
    print(f"{options.pictures:,} pictures with 100 detections each, {rounds} round(s) of each way", flush=True)
    return benchmark_coco(options, rounds=rounds), {"coco_options": asdict(options)}


def _chosen(value: int | None, default: int) -> int:
    return default if value is None else value


def _check(plan: Plan, threads: int) -> None:
    for name, value, least in (
        ("rounds", plan.rounds, 1),
        ("steps", plan.steps, 1),
        ("discard", plan.discard, 0),
        ("threads", threads, 1),
    ):
        if value < least:
            raise ConfigError(f"{name} {value}: give {least} or more")


def _describe(device: torch.device, threads: int, plan: Plan, limits: Limits) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {threads} thread(s)"
    products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in limits.flops.items())
    return (
        f"{name}: matrix products {products}; memory {limits.bandwidth / 1e9:,.1f} GB/s\n"
        f"{plan.rounds} round(s) of {plan.steps} timed step(s) of each way"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command `benchmark`."""
    run_command(benchmark, positional="parts", argv=argv)


if __name__ == "__main__":
    main()
