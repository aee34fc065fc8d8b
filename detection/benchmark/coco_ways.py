"""COCO's twelve numbers from an annotation file and a results file, in our way and in those of two known packages."""

import contextlib
import gc
import io
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from detection.data.coco import read_coco
from detection.evaluate.coco import COCO_METRICS, coco_metrics
from detection.evaluate.files import read_coco_results

Numbers = list[float | None]


def ours(truth: Path, found: Path) -> Numbers:
    """The twelve numbers, in 0..1; None for one that does not exist."""
    annotations = read_coco(None, truth, bad_boxes="keep").annotations
    numbers = coco_metrics(annotations, read_coco_results(found, annotations))
    return [None if numbers[name] is None else numbers[name] / 100 for name in COCO_METRICS]


def with_pycocotools(truth: Path, found: Path) -> Numbers:
    """The same by the package of COCO's authors."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _usual_way(COCO, COCOeval, truth, found)


def with_faster_coco_eval(truth: Path, found: Path) -> Numbers:
    """The same by a package that does the evaluation, but not the loading, in C++."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _usual_way(COCO, COCOeval_faster, truth, found)


def _usual_way(read: Any, evaluator: Any, truth: Path, found: Path) -> Numbers:
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = read(str(truth))
        evaluation = evaluator(annotations, annotations.loadRes(str(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else float(value) for value in evaluation.stats[: len(COCO_METRICS)]]


WAYS: dict[str, Callable[[Path, Path], Numbers]] = {
    "ours": ours,
    "pycocotools": with_pycocotools,
    "faster-coco-eval": with_faster_coco_eval,
}


def in_a_process(name: str, truth: Path, found: Path) -> tuple[Numbers, int | None]:
    """The numbers by a way, and how many bytes a process of its own needed at its peak beyond those at its start."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, name, truth, found).result()


def _with_peak(name: str, truth: Path, found: Path) -> tuple[Numbers, int | None]:
    gc.collect()
    before = _forget_peak()
    numbers = WAYS[name](truth, found)
    return numbers, None if before is None else _memory("VmHWM") - before


def _forget_peak() -> int | None:
    """Starts the process's peak anew, and gives its memory in bytes; None where this can't be done (not on Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    except OSError:
        return None


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
