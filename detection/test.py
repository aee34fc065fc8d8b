"""Testing a detector: VOC's and COCO's metrics, official result files. Also the command `evaluate_detector`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from backbones.cli import run_command
from backbones.data.findings import printable
from backbones.engine.acceleration import set_determinism
from backbones.engine.distributed import join_world
from backbones.engine.run import check_writable, refuse_results, write_json
from backbones.errors import ConfigError, DataError, RunFolderError
from backbones.weights import WeightsMetadata
from detection.config import DetectionData
from detection.data.annotations import DetectionDataset
from detection.data.coco import annotation_files
from detection.data.ilsvrc import ilsvrc_folder
from detection.data.readers import for_testing, read_split
from detection.data.voc import voc_lists
from detection.evaluate.arrays import DetectionTable
from detection.evaluate.evaluate import Metric, evaluate_detections, format_results
from detection.evaluate.files import (
    results_split,
    voc_results_file,
    voc_results_in,
    write_coco_results,
    write_voc_results,
)
from detection.evaluate.suspicions import suspicions
from detection.inference.detect import detect_in_dataset
from detection.inference.ensemble import make_ensemble
from detection.inference.options import InferenceOptions
from detection.structures import Detections
from detection.weights import load_detectors


def evaluate_detector(
    model: list[str],
    data: DetectionData,
    inference: InferenceOptions = InferenceOptions(),  # noqa: B008 (jsonargparse reads the default)
    output: str | None = None,
    metric: list[Metric] = ["coco", "voc07", "voc12"],  # noqa: B006 (jsonargparse reads the default)
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    workers: int = 4,
    overwrite: bool = False,
) -> None:
    """Tests a detector, or several as an ensemble, on the test split of a data set.

    Writes results.json, detections.json (COCO's form) and comp4_det_<split>_<class>.txt (VOC's form). Of a split whose
    annotations are not published (VOC2012's test, COCO's test-dev) only the files are written, for the official server.
    Example: python tools/evaluate_detector.py --model runs/voc --data.name voc --data.root VOCdevkit --output found
    With all of Appendix B: --model runs/a runs/b --inference.refine true --inference.vote true
    --inference.scales '[200, 400, 600, 800, 1000]'

    Args:
        model: run folders or weights.safetensors files. Several of the same classes are an ensemble: the union of their
            proposals, each region's mean scores and boxes; score threshold, NMS and number of detections are the
            first one's.
        data: the pictures; name, root, test_split, bad_boxes and test_size count. Their size is the one trained with.
        inference: box refinement and voting, the image pyramid.
        output: a folder for the results; without it they are only printed.
        metric: coco (12 numbers, and AP by class), voc07 (11-point AP), voc12 (area under the curve), det (ILSVRC's).
        device: auto takes a GPU where there is one.
        precision: fp32 or bf16.
        workers: data-loading processes.
        overwrite: replace results that the folder holds.
    """
    if workers < 0:
        raise ConfigError(f"workers {workers}: give 0 or more")
    if not metric:
        raise ConfigError("--metric: name one or more of coco, voc07, voc12")
    if not data.test_split:
        raise ConfigError("data.test_split is missing: name the split to test on")
    if output:
        folder = Path(output)
        refuse_results(folder, ["results.json", "detections.json", *voc_results_in(folder)], overwrite)
    with join_world(device) as world:
        set_determinism(False, one_size=False)
        models = load_detectors(model)
        dataset = _read_data(data, data.test_split, models[0][1], output)
        for detector, _ in models:
            detector.to(world.device)
        ensemble = make_ensemble(models, inference)
        detections = detect_in_dataset(ensemble, dataset, world=world, precision=precision, workers=workers)
        if not world.is_main:
            return
        table = DetectionTable.of(detections, len(dataset))
        print(f"{len(table):,} detections in {len(dataset):,} pictures of {data.test_split}")
        print("".join(f"note: {note}\n" for note in suspicions(dataset.annotations, table, "coco")))
        results = evaluate_detections(dataset.annotations, detections, metric) if dataset.annotated else None
        print(format_results(results) if results is not None else _say_where_to_score(data))
        if output:
            _write(Path(output), data.test_split, dataset, detections, results)
            print(f"written to {output}")


def _read_data(data: DetectionData, split: str, metadata: WeightsMetadata, output: str | None) -> DetectionDataset:
    """The test split. Refuses one that can't be scored, or whose files can't be written."""
    dataset = read_split(
        data.name,
        data.root,
        split,
        metadata.classes,
        bad_boxes=for_testing(data.bad_boxes),
        drawn_size=metadata.detector["shorter_side"],
        drawn_count=data.test_size,
        need_annotations=False,
    )
    ids = zip(metadata.classes, dataset.annotations.category_ids, metadata.category_ids or [], strict=False)
    for name, here, known in ids if data.name == "coco" else []:
        if here != known:
            raise DataError(
                f"{_annotations_of(data)}: category '{printable(name)}' has the id {here} here, "
                f"and {known} in the detector's training set"
            )
    if not dataset.annotated and not output:
        raise ConfigError(f"{_annotations_of(data)}: no annotations of {split} to score with; write files, by --output")
    if output:
        folder = Path(output)
        files = [voc_results_file(folder, results_split(split), name) for name in metadata.classes]
        for file in [folder / "results.json", folder / "detections.json", *files]:
            check_writable(file)
    return dataset


def _say_where_to_score(data: DetectionData) -> str:
    servers = {
        "voc": "pack the comp4_det files for http://host.robots.ox.ac.uk:8080, as it says there",
        "coco": "name and pack detections.json as https://cocodataset.org/#upload says",
        "det": "ILSVRC's server takes lines of picture, class number, score and corners: detections.json has them all",
    }
    return (
        f"{_annotations_of(data)}: no annotations of {data.test_split}, so nothing is scored here; "
        f"if they are not published, {servers[data.name]}"
    )


def _annotations_of(data: DetectionData) -> Path:
    """Where the annotations of the test split lie, or should; of several joined, those of the first."""
    root, split = Path(data.root or ""), data.test_split or ""
    if data.name == "voc":
        return voc_lists(root, split)[0][0] / "Annotations"
    if data.name == "det":
        return (ilsvrc_folder(root, "DET") or root) / "Annotations/DET"
    annotated, pictures_alone = annotation_files(root, split.split("+")[0].strip())
    return annotated if annotated.exists() or not pictures_alone.exists() else pictures_alone


def _write(
    folder: Path,
    split: str,
    dataset: DetectionDataset,
    detections: Sequence[Detections],
    results: dict[str, dict[str, Any]] | None,
) -> None:
    """Writes the files, and removes those of an earlier evaluation: perhaps of another split."""
    try:
        for name in ["results.json", *voc_results_in(folder)]:
            (folder / name).unlink(missing_ok=True)
        write_coco_results(folder / "detections.json", dataset.annotations, detections)
        write_voc_results(folder, results_split(split), dataset.annotations, detections)
        if results is not None:
            write_json(folder / "results.json", results)
    except OSError as error:
        raise RunFolderError(f"{folder}: can't be written ({error.strerror})") from error


def main(argv: Sequence[str] | None = None) -> None:
    """The command `evaluate_detector`."""
    run_command(evaluate_detector, argv=argv)


if __name__ == "__main__":
    main()
