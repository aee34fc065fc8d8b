"""The parts of the benchmark: what each is called, which options it takes, and what runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backbones.benchmark import cifar_part, input_part, train_part
from backbones.benchmark.report import PartReport
from detection.benchmark import coco_part, detector_part


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Args:
        options: the dataclass of its options; their defaults take a CPU minutes.
        full_options: (options, device) to those for a GPU.
        check: of options, refuses what can be refused before anything is measured.
        run: of options, plan, device, threads and limits, measures.
        steps, discard: of a segment on a CPU, where no others are asked for.
        gpu_steps, gpu_discard: likewise on a GPU.
    """

    options: Callable[[], Any]
    full_options: Callable[..., Any]
    check: Callable[[Any], None]
    run: Callable[..., PartReport]
    steps: int = 4
    discard: int = 2
    gpu_steps: int = 20
    gpu_discard: int = 5


PARTS = {
    "input": Part(
        input_part.InputPartOptions, input_part.full_options, input_part.check_input, input_part.benchmark_input
    ),
    "train": Part(
        train_part.TrainPartOptions,
        train_part.full_options,
        train_part.check_train,
        train_part.benchmark_train,
        steps=2,
        discard=1,
        gpu_steps=8,
        gpu_discard=3,
    ),
    "cifar": Part(
        cifar_part.CifarOptions,
        cifar_part.full_options,
        cifar_part.check_cifar,
        cifar_part.benchmark_cifar,
        gpu_steps=100,
        gpu_discard=20,
    ),
    "detector": Part(
        detector_part.DetectorPartOptions,
        detector_part.full_options,
        detector_part.check_detector,
        detector_part.benchmark_detector,
        steps=1,
        discard=1,
        gpu_steps=5,
        gpu_discard=2,
    ),
    "coco": Part(coco_part.CocoOptions, coco_part.full_options, coco_part.check_coco, coco_part.benchmark_coco),
}
