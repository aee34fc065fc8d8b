"""Scores files of detections, whatever made them."""

from collections.abc import Sequence
from pathlib import Path

from backbones.cli import run_command
from backbones.data.findings import printable
from backbones.engine.run import check_writable, write_json
from backbones.errors import DataError
from detection.data.annotations import Annotations
from detection.data.coco import read_coco
from detection.data.voc import read_voc
from detection.evaluate.arrays import DetectionTable
from detection.evaluate.evaluate import Metric, evaluate_detections, format_results
from detection.evaluate.files import other_voc_results, read_coco_table, read_voc_table, split_name
from detection.evaluate.suspicions import suspicions


def score(
    annotations: Path, detections: Path, metric: list[Metric], output: Path | None = None, split: str = "test"
) -> None:
    """Scores the detections of any detector.

    Takes COCO annotations with a COCO results JSON, or a VOC year folder with a folder of
    `comp4_det_<split>_<class>.txt`; either can be scored by any metric. What does not fit is an error; what fits but
    looks odd (boxes outside of their pictures, pictures or classes without detections) is noted above the numbers.

    Args:
        annotations: COCO annotation file (JSON), or VOC year folder.
        detections: COCO results file (JSON), or folder of VOC results files.
        metric: COCO's twelve numbers (coco), VOC's AP as the mean over 11 recalls (voc07) or as an area (voc12).
        output: where to write the numbers, as JSON.
        split: the split of a VOC year folder.
    """
    if output is not None:
        check_writable(output)
    read = _read_voc if annotations.is_dir() else _read_coco
    truth, found, notes = read(annotations, detections, split)
    results = evaluate_detections(truth, found, metric)
    if output is not None:
        write_json(output, results)
    print(f"{len(found):,} detections in {len(truth):,} pictures, {len(truth.class_names):,} classes")
    print("".join(f"note: {note}\n" for note in notes))
    print(format_results(results))
    if output is not None:
        print(f"\nwritten to {output}")


# Boxes are kept as the files have them, good or bad: official numbers count them all.
def _read_coco(annotations: Path, detections: Path, split: str) -> tuple[Annotations, DetectionTable, list[str]]:
    if detections.is_dir():
        raise DataError(f"{detections}: is a folder; COCO annotations go with a results file (JSON)")
    truth = read_coco(None, annotations, bad_boxes="keep").annotations
    found = read_coco_table(detections, truth)
    return truth, found, suspicions(truth, found, "coco")


def _read_voc(annotations: Path, detections: Path, split: str) -> tuple[Annotations, DetectionTable, list[str]]:
    if not detections.is_dir():
        raise DataError(f"{detections}: not a folder of comp4_det_{split}_<class>.txt, as VOC annotations need")
    truth = read_voc(annotations, split, bad_boxes="keep", need_pictures=False).annotations
    found = read_voc_table(detections, split_name(split), truth)
    others = other_voc_results(detections, split_name(split), truth)
    notes = [f"{printable(', '.join(others))}: of no class of the annotations, so not read"] if others else []
    return truth, found, notes + suspicions(truth, found, "voc")


def main(argv: Sequence[str] | None = None) -> None:
    """The command score_detections."""
    run_command(score, argv=argv)
