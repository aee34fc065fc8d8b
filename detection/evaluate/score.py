"""Scores files of detections, whatever made them."""

from collections.abc import Sequence
from pathlib import Path

from backbones.cli import run_command
from backbones.engine.run import check_writable, write_json
from backbones.errors import DataError
from detection.data.annotations import Annotations
from detection.data.coco import read_coco
from detection.data.voc import read_voc
from detection.evaluate.evaluate import Metric, evaluate_detections, format_results
from detection.evaluate.files import read_coco_results, read_voc_results, split_name
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
    if output is not None:
        check_writable(output)
    truth, found = (_read_voc if annotations.is_dir() else _read_coco)(annotations, detections, split)
    results = evaluate_detections(truth, found, metric)
    if output is not None:
        write_json(output, results)
    print(format_results(results))


# Boxes are kept as the files have them, good or bad: official numbers count them all.
def _read_coco(annotations: Path, detections: Path, split: str) -> tuple[Annotations, list[Detections]]:
    truth = read_coco(None, annotations, bad_boxes="keep").annotations
    return truth, read_coco_results(detections, truth)


def _read_voc(annotations: Path, detections: Path, split: str) -> tuple[Annotations, list[Detections]]:
    if not detections.is_dir():
        raise DataError(f"{detections}: not a folder of comp4_det_{split}_<class>.txt, as VOC annotations need")
    truth = read_voc(annotations, split, bad_boxes="keep", need_pictures=False).annotations
    return truth, read_voc_results(detections, split_name(split), truth)


def main(argv: Sequence[str] | None = None) -> None:
    """The command score_detections."""
    run_command(score, argv=argv)
