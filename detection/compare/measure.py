"""What a way to find objects finds, and what it costs in time and memory."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from backbones.benchmark.measure import Stopwatch
from backbones.benchmark.memory import with_peak_memory
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.distributed import World, gather_objects
from backbones.weights import WeightsMetadata
from detection.data.annotations import DetectionDataset
from detection.data.samples import make_scaled_picture
from detection.inference.detect import detect_in_dataset, detect_in_picture
from detection.inference.ensemble import Ensemble, View, make_ensemble
from detection.inference.options import InferenceOptions
from detection.models import FasterRCNN
from detection.structures import Detections

Models = Sequence[tuple[FasterRCNN, WeightsMetadata]]
"""Detectors in eval mode, as `load_detectors` gives them."""


@dataclass(frozen=True)
class Cost:
    """What finding objects takes.

    Args:
        seconds: of a picture, the median; loading and resizing are left out.
        cpu_seconds: likewise, those in which a core was at work for it (of all threads), which other programs on the
            machine disturb less; None on a GPU.
        memory: bytes at the peak: weights, and what is needed beside them (a process, where there are several); None
            where that can't be told (see `with_peak_memory`).
    """

    seconds: float
    cpu_seconds: float | None
    memory: int | None


class TimedEnsemble(Ensemble):
    """Takes the time of each picture: `seconds` and `cpu_seconds`."""

    def __init__(self, ensemble: Ensemble, device: torch.device) -> None:
        super().__init__(ensemble.members, ensemble.options)
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self._watch = Stopwatch(device)

    def __call__(self, images: Mapping[View, Tensor], proposals: Tensor | None = None) -> Detections:
        self._watch.start()
        cpu = time.process_time()
        found = super().__call__(images, proposals)
        self.cpu_seconds.append(time.process_time() - cpu)
        self.seconds.append(self._watch.stop())
        return found


def find_and_measure(
    models: Models,
    inference: InferenceOptions,
    dataset: DetectionDataset,
    *,
    world: World,
    precision: Precision,
    workers: int,
) -> tuple[list[Detections], Cost]:
    """The detections in all pictures, as `detect_in_dataset` gives them, and what one picture costs.

    The detectors are on the device meanwhile, and on the CPU before and after.
    """
    for detector, _ in models:
        detector.to(world.device)
    ensemble = make_ensemble(models, inference)
    timed = TimedEnsemble(ensemble, world.device)
    try:
        with autocast(precision, world.device):  # what is made once, with the first picture, is no cost of a row
            detect_in_picture(ensemble, make_scaled_picture(dataset, 0, ensemble.views))
        found, needed = with_peak_memory(
            lambda: detect_in_dataset(timed, dataset, world=world, precision=precision, workers=workers),
            world.device,
        )
    finally:
        for detector, _ in models:
            detector.to("cpu")
    seconds, cpu_seconds = (
        median(value for part in gather_objects(values) for value in part)
        for values in (timed.seconds, timed.cpu_seconds)
    )
    peaks = [value for value in gather_objects(needed) if value is not None]
    detectors = {detector for detector, _ in models}  # one that is named twice is there once
    weights = sum(t.numel() * t.element_size() for detector in detectors for t in detector.state_dict().values())
    on_cpu = world.device.type == "cpu"
    return found, Cost(seconds, cpu_seconds if on_cpu else None, weights + max(peaks) if peaks else None)
