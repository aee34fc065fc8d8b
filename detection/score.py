"""Scores files of detections, whatever made them."""

from collections.abc import Sequence
from pathlib import Path

from backbones.cli import run_command
from backbones.engine.outputs import check_writable, refuse_results, write_json
from backbones.text import printable
from detection.evaluate.evaluate import Metric, evaluate_detections, format_results
from detection.evaluate.files import other_voc_results, results_split
from detection.evaluate.inputs import read_found, read_truth
from detection.evaluate.suspicions import suspicions


def score(
    annotations: Path,
    detections: Path,
    metric: list[Metric],
    output: Path | None = None,
    split: str = "test",
    overwrite: bool = False,
) -> None:
    """Scores the detections of any detector.

    Takes COCO annotations with a COCO results JSON, or a VOC year folder with a folder of
    `comp4_det_<split>_<class>.txt`; either can be scored by any metric. What does not fit is an error; what fits but
    looks odd (boxes outside of their pictures, pictures or classes without detections) is noted above the numbers.

    Args:
        annotations: COCO annotation file (JSON), or VOC year folder.
        detections: COCO results file (JSON), folder of VOC results files, or folder that evaluate_detector wrote.
        metric: COCO's twelve numbers (coco), VOC's AP as the mean over 11 recalls (voc07) or as an area (voc12),
            ILSVRC DET's AP (det; its thresholds of IoU are lower for small objects).
        output: where to write the numbers, as JSON.
        split: the split of a VOC year folder.
        overwrite: replace the file `output`.
    """
    if output is not None:
        refuse_results(output.parent, [output.name], overwrite)
    truth = read_truth(annotations, split).annotations
    found = read_found(annotations, split, truth, detections)
    notes = suspicions(truth, found, "voc" if annotations.is_dir() else "coco")
    if annotations.is_dir() and (others := other_voc_results(detections, results_split(split), truth)):
        notes.insert(0, f"{printable(', '.join(others))}: of no class of the annotations, so not read")
    if output is not None:
        check_writable(output)
    results = evaluate_detections(truth, found, metric)
    if output is not None:
        write_json(output, results)
    print(f"{len(found):,} detections in {len(truth):,} pictures, {len(truth.class_names):,} classes")
    print("".join(f"note: {note}\n" for note in notes))
    print(format_results(results))
    if output is not None:
        print(f"\nwritten to {output}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command score_detections."""
    run_command(score, argv=argv)


if __name__ == "__main__":
    main()
