"""A network that is trained from JPEG files, beside the same steps on pictures that are on the device already."""

from collections.abc import Iterable
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from backbones.benchmark.feeds import Crop, our_source, to_device
from backbones.benchmark.measure import Plan, interleave, ratios, spread
from backbones.benchmark.our_cifar import OurTraining, Variant
from backbones.benchmark.report import Row
from backbones.data.sampler import StepSampler
from backbones.inputs import TrainingInput
from backbones.models import get_model


def fed_training(
    title: str,
    name: str,
    root: Path,
    crop: Crop,
    *,
    plan: Plan,
    batch_size: int,
    workers: int,
    device: torch.device,
    seed: int,
) -> Row:
    """Trains the network both ways in turn; what lacks of a ratio of 1 is time that it waits for its pictures.

    Each segment starts the loading processes anew, so as many more steps are left out as they have batches ready.
    """
    source, size = our_source(root, crop, workers=workers, device=device, dtype=torch.float32)
    sources = {"files": source, "resident": resident(source, size, batch_size, device)}
    ways = {}
    for key, way in sources.items():
        torch.manual_seed(seed)
        model = get_model(name)
        ways[key] = OurTraining(model, way, Variant("bf16"), size=size, batch_size=batch_size, device=device)
    discard = max(plan.discard, 2 * workers)
    segments = {key: partial(way.segment, plan.steps, discard) for key, way in ways.items()}
    for segment in segments.values():  # warm-up
        segment()
    rates = interleave(segments, plan.rounds, description=title)
    share = spread(ratios(rates["files"], rates["resident"])).median
    return Row(
        "input",
        f"{title}, {workers} workers / resident pictures",
        "images/s",
        rates["files"],
        rates["resident"],
        details={"share_of_limit": share},
        notes=[f"{share:.0%} of the limit, the training steps themselves"],
    )


def resident(source: TrainingInput, size: int, batch_size: int, device: torch.device) -> TrainingInput:
    """One batch of `source`, moved to the device, over and over; every step prepares it, as it does one from files."""
    sampler = StepSampler(
        size, batch_size=batch_size, accumulate=1, start_step=0, steps=1, seed=0, rank=0, world_size=1
    )
    kept = to_device(next(iter(source.batches(sampler))), device)

    def batches(sampler: StepSampler) -> Iterable[Any]:
        return repeat(kept, len(sampler))

    return TrainingInput(batches, source.prepare)
