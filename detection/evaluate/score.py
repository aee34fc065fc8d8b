"""Scores files of detections, whatever made them."""

import json
import os
from pathlib import Path

from backbones.cli import run_command
from backbones.errors import DataError, RunFolderError
from detection.data.annotations import Annotations
from detection.data.coco import read_coco
from detection.data.voc import read_voc, year_folder
from detection.evaluate.evaluate import Metric, evaluate_detections, format_results
from detection.evaluate.files import read_coco_results, read_voc_results
from detection.structures import Detections


def score(
    annotations: Path, detections: Path, metric: list[Metric], output: Path | None = None, split: str = "test"
) -> None:
    """Scores the detections of any detector.

    Takes COCO annotations with a COCO results JSON, or a VOC year folder with a folder of
    `comp4_det_<split>_<class>.txt`; either can be scored by any metric.

    Args:
        annotations: COCO annotation file (JSON), or VOC year folder.
        detections: COCO results file (JSON), or folder of VOC results files.
        metric: COCO's twelve numbers (coco), VOC's AP as the mean over 11 recalls (voc07) or as an area (voc12).
        output: where to write the numbers, as JSON.
        split: the split of a VOC year folder.
    """
    truth, found = (_read_voc if annotations.is_dir() else _read_coco)(annotations, detections, split)
    results = evaluate_detections(truth, found, metric)
    if output is not None:
        _write(output, results)
    print(format_results(results))


# Boxes are kept as the files have them, good or bad: official numbers count them all.
def _read_coco(annotations: Path, detections: Path, split: str) -> tuple[Annotations, list[Detections]]:
    truth = read_coco(None, annotations, bad_boxes="keep").annotations
    return truth, read_coco_results(detections, truth)


def _read_voc(annotations: Path, detections: Path, split: str) -> tuple[Annotations, list[Detections]]:
    if not detections.is_dir():
        raise DataError(f"{detections}: not a folder of comp4_det_{split}_<class>.txt, as VOC annotations need")
    truth = read_voc(annotations, split, bad_boxes="keep", need_pictures=False).annotations
    _, name = year_folder(annotations, split)
    return truth, read_voc_results(detections, name, truth)


def _write(path: Path, results: dict) -> None:
    """Writes a file that is either all there or not at all."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError(f"{path}: can't be written ({error.strerror})") from error


def main() -> None:
    """The command score_detections."""
    run_command(score)
