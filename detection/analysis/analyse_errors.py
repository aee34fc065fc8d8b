"""The command `analyse_errors`: what costs detectors AP, and where one gains on another."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from backbones.analysis.figures import check_figure, save_figure
from backbones.cli import run_command
from backbones.engine.checkpoint import write_atomically
from backbones.engine.outputs import refuse_results, write_json
from detection.analysis.error_figure import draw_errors, draw_errors_by_class
from detection.analysis.error_tables import class_table, explain, run_table
from detection.analysis.runs import read_runs
from detection.analysis.tide import ErrorAnalysis, find_errors
from detection.evaluate.inputs import read_truth

WRITTEN = ("errors.json", "errors.md", "errors.png", "errors_by_class.png")


def analyse(
    annotations: Path,
    detections: list[Path],
    output: Path,
    names: list[str] = [],  # noqa: B006 (read by the command line, never changed)
    split: str = "test",
    overwrite: bool = False,
) -> None:
    """Says how much AP each type of error costs one or more detectors, over all classes and in each (TIDE).

    TIDE (Bolya et al., ECCV 2020) mends all errors of one type and takes the AP that this gains (dAP): wrong class,
    wrong place, both, duplicates, background, missed objects. AP is at an IoU of 0.5, of at most 100 detections a
    picture. Writes errors.json, errors.md (both tables), errors.png and errors_by_class.png. Example:
    python tools/analyse_errors.py --annotations annotations/instances_val2017.json --detections runs/vgg16-test
    runs/resnet101-test --names VGG-16 ResNet-101 --output errors

    Args:
        annotations: COCO annotation file (JSON), or VOC year folder.
        detections: of each run: for COCO a results file (JSON) or a folder that evaluate_detector wrote; for VOC a
            folder of comp4_det_<split>_<class>.txt.
        output: the folder to write.
        names: what to call the runs, in their order; by default as their files are called.
        split: the split of a VOC year folder.
        overwrite: replace results that the folder holds.
    """
    refuse_results(output, WRITTEN, overwrite)
    truth = read_truth(annotations, split).annotations
    runs = read_runs(annotations, split, truth, detections, names)
    figure = check_figure(str(output / "errors.png"))
    analyses = {run.name: find_errors(truth, run.detections) for run in runs}
    text = "\n\n".join([run_table(analyses), class_table(analyses, truth), *explain(analyses, truth)])
    write_json(output / "errors.json", [_record(run.path, run.name, analyses[run.name]) for run in runs])
    write_atomically(output / "errors.md", lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    save_figure(draw_errors(analyses), figure)
    save_figure(draw_errors_by_class(analyses), output / "errors_by_class.png")
    print(f"{text}\n\nwritten to {output}")


def _record(path: Path, name: str, analysis: ErrorAnalysis) -> dict[str, object]:
    return {"name": name, "detections": str(path)} | asdict(analysis)


def main(argv: Sequence[str] | None = None) -> None:
    """The command `analyse_errors`."""
    run_command(analyse, argv=argv)
