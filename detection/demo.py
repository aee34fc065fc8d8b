"""The whole chain on built-in pictures and a CPU: pretrain, train detectors, compare. Also the command `demo`."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from backbones.analysis.complexity import complexity
from backbones.cli import run_command
from backbones.engine.distributed import World, join_world
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import RunFolderError, UserError
from backbones.jobs import Job, run_jobs
from backbones.markdown import format_table
from backbones.weights import load_classifier
from detection.data.annotations import DetectionDataset
from detection.data.shapes import shapes_for_detection
from detection.drawing import draw_detections, draw_marks, grid, object_marks, save_picture
from detection.inference.detect import detect_in_dataset
from detection.inference.ensemble import make_ensemble
from detection.inference.options import InferenceOptions
from detection.weights import load_detector

CONFIGS = Path(__file__).parent.parent / "configs" / "shapes"
ENLARGE = 2  # times
SEEN_BY_NOBODY = "test"
"""The split that the pictures of `detections.png` come from: nothing was trained or scored on it."""


def demo(output: str = "demo", scale: float = 1.0, overwrite: bool = False) -> None:
    """Shows the whole chain on built-in pictures, on a CPU, in about four minutes.

    Pretrains a small VGG and a small ResNet, trains Faster R-CNN on both and on the ResNet with new weights, and
    compares them on unseen pictures. Leaves summary.json, table.md, detections.png and all run folders.

    Args:
        output: the folder to write.
        scale: less than 1 shortens all trainings (to try the demo itself; the numbers then mean nothing).
        overwrite: replace an earlier demo in the folder.
    """
    folder = Path(output)
    if not CONFIGS.is_dir():
        raise UserError(f"{CONFIGS}: no such folder: the demo runs from a checkout of the project")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is no folder: name another --output")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise RunFolderError(f"{folder} is not empty: replace the demo there with --overwrite or name another --output")
    check_writable(folder / "summary.json")
    started = time.monotonic()
    run_jobs(_jobs(folder, scale), folder)
    rows = [_row(folder, "vgg", True), _row(folder, "resnet", True), _row(folder, "resnet", False)]
    table = format_rows(rows)
    write_json(folder / "summary.json", rows)
    (folder / "table.md").write_text(table + "\n")
    save_picture(draw_comparison(folder), folder / "detections.png")
    print(table)
    print(f"\n{time.monotonic() - started:.0f} s; the same in {folder}/table.md, pictures in {folder}/detections.png")


def _jobs(folder: Path, scale: float) -> list[Job]:
    """In the order of their urgency: on two cores all end at about the same time."""

    def job(module: str, config: str, name: str, *options: str, after: str | None = None) -> Job:
        file = CONFIGS / f"{config}.yaml"
        paths = ["--config", str(file), "--output", str(folder / name)]
        steps = int(yaml.safe_load(file.read_text())["train"]["steps"])
        return Job(name, ["-m", module, *paths, "--overwrite", *options], after, steps)

    def detector(kind: str) -> Job:
        weights = ("--backbone.weights", str(folder / f"classify_{kind}"))
        return job("detection.train", f"detect_{kind}", f"detect_{kind}", *weights, after=f"classify_{kind}")

    random = ("--backbone.norm", "batch", "--backbone.freeze_stages", "[]")
    jobs = [
        job("detection.train", "detect_resnet", "detect_resnet_random", *random),
        job("backbones.train", "classify_vgg", "classify_vgg"),
        job("backbones.train", "classify_resnet", "classify_resnet"),
        detector("vgg"),
        detector("resnet"),
    ]
    if scale != 1.0:
        for each in jobs:
            each.steps = max(2, round(scale * each.steps))
            each.arguments += ["--train.steps", str(each.steps)]
    return jobs


def _row(folder: Path, kind: str, pretrained: bool) -> dict[str, Any]:
    """One row of the comparison; parameters and multiply-adds are those of the classifier."""
    network, metadata = load_classifier(folder / f"classify_{kind}")
    cost = complexity(network, (3, metadata.input_size, metadata.input_size))
    results = _results(folder / (f"detect_{kind}" if pretrained else f"detect_{kind}_random"))
    return {
        "backbone": metadata.architecture,
        "pretrained": pretrained,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "top1_error": _results(folder / f"classify_{kind}")["center"]["top1_error"] if pretrained else None,
        "AP": results["coco"]["AP"],
        "AP50": results["coco"]["AP50"],
        "voc07_mAP": results["voc07"]["mAP"],
    }


def _results(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())["results"]


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """The comparison as a Markdown table that also reads well as text."""
    header = ["backbone", "weights", "parameters", "multiply-adds", "top-1 error %", "AP %", "AP50 %", "VOC07 mAP %"]
    cells = [header]
    for row in rows:
        weights = "pretrained" if row["pretrained"] else "random"
        numbers = [row[key] for key in ("top1_error", "AP", "AP50", "voc07_mAP")]
        texts = ["-" if number is None else f"{number:.1f}" for number in numbers]
        millions = f"{row['multiply_adds'] / 1e6:.1f} M"
        cells.append([row["backbone"], weights, f"{row['parameters']:,}", millions, *texts])
    return format_table(cells, texts=2)


def draw_comparison(folder: Path, count: int = 6) -> Image.Image:
    """Unseen pictures, one a row: what is there, and what each detector finds."""
    with join_world("cpu") as world:
        columns = dict(_columns(folder, count, world))
    pictures = [picture for row in zip(*columns.values(), strict=True) for picture in row]
    return grid(pictures, len(columns), titles=list(columns))


def _columns(folder: Path, count: int, world: World) -> Iterator[tuple[str, list[Image.Image]]]:
    """A title, and the pictures below it."""
    runs = {"VGG": "detect_vgg", "ResNet": "detect_resnet", "ResNet, from random": "detect_resnet_random"}
    for place, (title, name) in enumerate(runs.items()):
        detector, metadata = load_detector(folder / name)
        ensemble = make_ensemble([(detector, metadata)], InferenceOptions())
        unseen = shapes_for_detection(SEEN_BY_NOBODY, count, metadata.detector["shorter_side"])
        images = [unseen.load_image(index) for index in range(count)]
        found = detect_in_dataset(ensemble, unseen, world=world)
        if place == 0:
            yield "ground truth", [_draw_truth(unseen, index) for index in range(count)]
        pairs = zip(images, found, strict=True)
        yield title, [draw_detections(image, each, metadata.classes, enlarge=ENLARGE) for image, each in pairs]


def _draw_truth(dataset: DetectionDataset, index: int) -> Image.Image:
    target = dataset.target(index)
    columns = (target.boxes, target.labels, target.ignore)
    marks = object_marks(dataset.annotations.class_names, *(column.tolist() for column in columns))
    return draw_marks(dataset.load_image(index), marks, scale=ENLARGE)


def main(argv: Sequence[str] | None = None) -> None:
    """The command `demo`."""
    run_command(demo, argv=argv)


if __name__ == "__main__":
    main()
