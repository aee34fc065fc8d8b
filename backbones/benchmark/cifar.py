"""Training one network of 4.2: ours in its variants beside the usual loop, and each beside the machine's limit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from backbones.analysis.complexity import Complexity
from backbones.benchmark.floor import ITERATIONS, cifar_complexity, clock, floor_seconds, step_cost
from backbones.benchmark.limits import Limits
from backbones.benchmark.measure import Plan, interleave, ratios, spread
from backbones.benchmark.memory import with_peak_memory
from backbones.benchmark.our_cifar import OurTraining, Variant, resident_input
from backbones.benchmark.plain_cifar import PlainTraining
from backbones.benchmark.report import Row
from backbones.data.cifar10 import CLASS_NAMES
from backbones.data.datasets import ClassificationDataset
from backbones.models import get_model
from backbones.models.stages import StagedNetwork

PICTURES = 50_000  # of CIFAR-10's training set
UNIT = "images/s"


@dataclass(frozen=True)
class Way:
    """One way to train a network, as it was measured.

    Args:
        rates: images a second in each round.
        memory: see `with_peak_memory`.
        startup_seconds: what the first segment took longer than later ones: compiling, choosing algorithms.
    """

    rates: list[float]
    memory: int | None
    startup_seconds: float


def random_pictures(count: int, seed: int) -> ClassificationDataset:
    """Pictures of CIFAR-10's shape that show nothing: speed does not depend on what they show."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    return ClassificationDataset(
        CLASS_NAMES,
        rng.integers(len(CLASS_NAMES), size=count),
        lambda index: Image.fromarray(pixels[index]),
        lambda index: f"random picture {index}",
        f"{count} random pictures of seed {seed}",
        pixels=pixels,
    )


def compare(
    name: str,
    variants: Sequence[Variant],
    dataset: ClassificationDataset,
    *,
    plan: Plan,
    batch_size: int,
    device: torch.device,
    seed: int,
    limits: Limits,
) -> list[Row]:
    """Trains a network in the usual way and in each variant of ours, in turn; a row for each variant."""
    with _ready_ways(name, variants, dataset, batch_size=batch_size, device=device, seed=seed) as ways:
        measured = _measure(name, ways, plan, batch_size=batch_size, device=device)
    reference = measured.pop("plain")
    cost, rows = cifar_complexity(name), []
    for variant in variants:
        way = measured[variant.name]
        step = batch_size / spread(way.rates).median
        details, notes = beside_limit(step, cost, variant.precision, batch_size, limits)
        startup, paid = way.startup_seconds, None
        if variant.compiled and (eager := measured.get(Variant(variant.precision, False, variant.captured).name)):
            gain = spread(ratios(way.rates, eager.rates))
            if gain.lower > 1:  # else it may be chance
                paid = steps_until_paid(startup - eager.startup_seconds, step * gain.median, step)
            after = "that it is faster is not clear" if paid is None else f"paid back after {paid:,} steps"
            notes = [*notes, f"{gain.median:.2f} times as fast as eager; {startup:.1f} s to start; {after}"]
        details |= {"startup_seconds": startup, "paid_after_steps": paid}
        rows.append(
            Row(
                "cifar",
                f"{name} {variant.name}",
                UNIT,
                way.rates,
                reference.rates,
                way.memory,
                reference.memory,
                details,
                notes,
            )
        )
    return rows


@contextmanager
def _ready_ways(
    name: str,
    variants: Sequence[Variant],
    dataset: ClassificationDataset,
    *,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> Iterator[dict[str, PlainTraining | OurTraining]]:
    """The usual loop as "plain" and each variant of ours, all from the same weights; cleans up in the end."""
    plain = PlainTraining(_network(name, seed), dataset, batch_size=batch_size, device=device)
    source = resident_input(dataset, name, device)
    ours = {
        variant.name: OurTraining(
            _network(name, seed), source, variant, size=len(dataset), batch_size=batch_size, device=device
        )
        for variant in variants
    }
    try:
        yield {"plain": plain, **ours}
    finally:
        plain.close()
        torch.compiler.reset()  # it keeps a few compiled networks only, and from then on would compile no more


def _network(name: str, seed: int) -> StagedNetwork:
    torch.manual_seed(seed)
    return get_model(name, len(CLASS_NAMES))


def _measure(
    name: str, ways: dict[str, PlainTraining | OurTraining], plan: Plan, *, batch_size: int, device: torch.device
) -> dict[str, Way]:
    first, memory = {}, {}
    for key, way in ways.items():  # warm-up
        first[key] = way.segment(plan.steps, 0)
        _, memory[key] = with_peak_memory(partial(way.segment, 1, 1), device)
    segments = {key: partial(way.segment, plan.steps, plan.discard) for key, way in ways.items()}
    rates = interleave(segments, plan.rounds, description=name)
    return {
        key: Way(rates[key], memory[key], max(0.0, first[key].seconds - first[key].items / spread(rates[key]).median))
        for key in ways
    }


def beside_limit(
    step: float, cost: Complexity, precision: str, batch_size: int, limits: Limits
) -> tuple[dict[str, Any], list[str]]:
    """A step's seconds beside the least that this machine could take: numbers for a row, and a note."""
    floor, bound = floor_seconds(
        step_cost(cost, batch_size=batch_size, precision=precision),
        operations_per_second=limits.flops[precision],
        bytes_per_second=limits.bandwidth,
    )
    details = {"step_seconds": step, "floor_seconds": floor, "bound": bound, "share_of_limit": floor / step}
    note = (
        f"{ITERATIONS:,} iterations take {clock(ITERATIONS * step)}, floor {clock(ITERATIONS * floor)} ({bound}): "
        f"{floor / step:.0%} of the limit"
    )
    return details, [note]


def steps_until_paid(seconds: float, before: float, after: float) -> int | None:
    """After how many steps `seconds` are made up for by steps of `after` seconds instead of `before`; None: never."""
    if after >= before:
        return None
    return max(0, -int(-seconds // (before - after)))
