"""Testing a detector: the metrics of VOC, COCO and DET, official result files. Also the command `evaluate_detector`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from backbones.cli import run_command
from backbones.engine.acceleration import set_determinism
from backbones.engine.distributed import join_world
from backbones.engine.outputs import check_writable, refuse_results, write_json
from backbones.errors import ConfigError, DataError
from backbones.text import printable
from backbones.weights import WeightsMetadata
from detection.config import DetectionData
from detection.data.annotations import DetectionDataset
from detection.data.coco import annotation_files
from detection.data.ilsvrc import ilsvrc_folder
from detection.data.readers import for_testing, read_split
from detection.data.voc import voc_lists
from detection.evaluate.arrays import DetectionTable
from detection.evaluate.evaluate import Metric, evaluate_detections, format_results, metrics_of
from detection.evaluate.files import COCO_FILE, results_files, voc_results_in, write_results
from detection.evaluate.suspicions import suspicions
from detection.inference.detect import detect_in_dataset
from detection.inference.ensemble import make_ensemble
from detection.inference.options import InferenceOptions
from detection.weights import load_detectors


def evaluate_detector(
    model: list[str],
    data: DetectionData,
    inference: InferenceOptions = InferenceOptions(),  # noqa: B008 (jsonargparse reads the default)
    output: str | None = None,
    metric: list[Metric] = [],  # noqa: B006 (jsonargparse reads the default)
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
            By default the first three, and for data.name det all.
        device: auto takes a GPU where there is one.
        precision: fp32 or bf16.
        workers: data-loading processes.
        overwrite: replace results that the folder holds.
    """
    if workers < 0:
        raise ConfigError(f"workers {workers}: give 0 or more")
    if not data.test_split:
        raise ConfigError("data.test_split is missing: name the split to test on")
    if output:
        folder = Path(output)
        refuse_results(folder, ["results.json", COCO_FILE, *voc_results_in(folder)], overwrite)
    with join_world(device) as world:
        set_determinism(False, one_size=False)
        models = load_detectors(model)
        dataset = read_test_set(data, models[0][1])
        _check_files(data, dataset, output)
        for detector, _ in models:
            detector.move_to(world.device)
        ensemble = make_ensemble(models, inference)
        detections = detect_in_dataset(ensemble, dataset, world=world, precision=precision, workers=workers)
        if not world.is_main:
            return
        table = DetectionTable.of(detections, len(dataset))
        print(f"{len(table):,} detections in {len(dataset):,} pictures of {data.test_split}")
        print("".join(f"note: {note}\n" for note in suspicions(dataset.annotations, table, "coco")))
        asked = metric or metrics_of(data.name)
        results = evaluate_detections(dataset.annotations, detections, asked) if dataset.annotated else None
        print(format_results(results) if results is not None else _say_where_to_score(data))
        if output:
            (folder / "results.json").unlink(missing_ok=True)
            write_results(folder, data.test_split, dataset.annotations, detections)
            if results is not None:
                write_json(folder / "results.json", results)
            print(f"written to {output}")


def read_test_set(data: DetectionData, metadata: WeightsMetadata) -> DetectionDataset:
    """The test split that a detector is tested on; the built-in shapes are drawn at the size that it is trained with.

    Raises:
        UserError: it can't be read, or has not the detector's classes, or COCO's by other ids.
    """
    dataset = read_split(
        data.name,
        data.root,
        data.test_split or "",
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
                f"and {known} in the detector's training set: give it that id"
            )
    return dataset


def _check_files(data: DetectionData, dataset: DetectionDataset, output: str | None) -> None:
    """Refuses a test set that can't be scored where no files are asked for, and files that can't be written."""
    split = data.test_split or ""
    if not dataset.annotated and not output:
        raise ConfigError(f"{_annotations_of(data)}: no annotations of {split} to score with; write files, by --output")
    if output:
        folder = Path(output)
        for file in [folder / "results.json", *results_files(folder, split, dataset.annotations.class_names)]:
            check_writable(file)


def _say_where_to_score(data: DetectionData) -> str:
    servers = {
        "voc": "pack the comp4_det files for http://host.robots.ox.ac.uk:8080, as it says there",
        "coco": "name and pack detections.json as https://cocodataset.org/#upload says",
        "det": (
            "make the file for ILSVRC's server of detections.json: lines of the picture's number in test.txt (image_id "
            "is its name), the class's number in the devkit's meta_det (category_id is its place among the sorted "
            "WordNet ids, from 1), score, and corners (bbox is x, y, width, height)"
        ),
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


def main(argv: Sequence[str] | None = None) -> None:
    """The command `evaluate_detector`."""
    run_command(evaluate_detector, argv=argv)


if __name__ == "__main__":
    main()
