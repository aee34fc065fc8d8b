"""The part `coco` of the benchmark: from an annotation file and a results file to COCO's twelve numbers."""

import gc
import importlib.util
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import orjson
import torch

from backbones.benchmark.limits import Limits
from backbones.benchmark.measure import Plan, Segment, interleave, ratios, spread
from backbones.benchmark.report import PartReport, Row
from backbones.errors import ConfigError
from detection.benchmark.coco_files import write_coco_files
from detection.benchmark.coco_ways import WAYS, Numbers, in_a_process
from detection.evaluate.coco import COCO_METRICS

UNIT = "pictures/s"
DETECTIONS = 100  # a picture
TOLERANCE = 1e-9


@dataclass(frozen=True)
class CocoOptions:
    """From an annotation file and a results file to COCO's twelve numbers.

    Args:
        pictures: how many are drawn, with 100 detections each.
        seed: of the files.
    """

    pictures: int = 1000
    seed: int = 0


def full_options(options: CocoOptions, device: torch.device) -> CocoOptions:
    """As many pictures as val2017 has."""
    return replace(options, pictures=5000)


def check_coco(options: CocoOptions) -> None:
    """Refuses what can be refused before anything is measured.

    Raises:
        ConfigError: an option is wrong, or a package is missing.
    """
    if not 1 <= options.pictures <= 100_000:
        raise ConfigError(f"coco.pictures {options.pictures}: give 1 to 100000")
    modules = {"pycocotools": "pycocotools", "faster-coco-eval": "faster_coco_eval"}
    missing = [name for name, module in modules.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(f"coco: is compared with {' and '.join(missing)}: pip install {' '.join(missing)}")


def benchmark_coco(
    options: CocoOptions, *, plan: Plan, device: torch.device, threads: int, limits: Limits
) -> PartReport:
    """Measures ours and two packages in turn, on files drawn at random; the memory of each in a process of its own.

    It multiplies no matrices and moves few bytes: the limit is parsing the files, by the fastest general parser, which
    is measured in turn too. A segment is the work on all pictures, whatever the plan's steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        truth, found = write_coco_files(Path(folder), options.pictures, DETECTIONS, options.seed)
        numbers: dict[str, Numbers] = {}
        memory: dict[str, int | None] = {}
        for name in WAYS:
            numbers[name], memory[name] = in_a_process(name, truth, found)
        ways = {name: partial(_segment, way, truth, found, options.pictures) for name, way in WAYS.items()}
        ways["parsing"] = partial(_segment, parse, truth, found, options.pictures)
        rates = interleave(ways, plan.rounds, description="coco")
    share = spread(ratios(rates["ours"], rates["parsing"])).median
    return PartReport(
        [
            Row(
                part="coco",
                name=f"{options.pictures:,} pictures / {name}",
                unit=UNIT,
                ours=rates["ours"],
                reference=rates[name],
                ours_memory=memory["ours"],
                reference_memory=memory[name],
                details={
                    "pictures": options.pictures,
                    "detections": options.pictures * DETECTIONS,
                    "greatest_difference": greatest_difference(numbers["ours"], numbers[name]),
                    "parsing_rate": spread(rates["parsing"]).median,
                    "share_of_limit": share,
                },
                notes=[
                    compare_numbers(numbers["ours"], numbers[name]),
                    f"{share:.0%} of the limit, parsing the two files alone",
                ],
            )
            for name in WAYS
            if name != "ours"
        ]
    )


def parse(truth: Path, found: Path) -> None:
    """Makes Python objects of both files, and nothing of these."""
    orjson.loads(truth.read_bytes())
    orjson.loads(found.read_bytes())


def _segment(way: Callable[[Path, Path], object], truth: Path, found: Path, pictures: int) -> Segment:
    gc.collect()  # what another way has left is not cleared away on this one's time
    started = time.perf_counter()
    way(truth, found)
    return Segment(pictures, time.perf_counter() - started)


def greatest_difference(ours: Numbers, reference: Numbers) -> float | None:
    """Of two lists of numbers in 0..1; None where only one of them has a number."""
    if [value is None for value in ours] != [value is None for value in reference]:
        return None
    pairs = zip(ours, reference, strict=True)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def compare_numbers(ours: Numbers, reference: Numbers) -> str:
    """Whether they are equal, in words."""
    difference = greatest_difference(ours, reference)
    if difference is not None and difference <= TOLERANCE:
        return f"the 12 numbers are equal (to {difference:.0e}; AP {_text(ours[0])})"
    apart = [
        f"{name} {_text(a)} and {_text(b)}"
        for name, a, b in zip(COCO_METRICS, ours, reference, strict=True)
        if (a is None) != (b is None) or not math.isclose(a or 0, b or 0, rel_tol=0, abs_tol=TOLERANCE)
    ]
    return f"NOT EQUAL: {', '.join(apart)}"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"
