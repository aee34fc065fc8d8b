"""Runs the detector's commands in this process, on networks and data so small that a step takes some milliseconds."""

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.data.shapes import CLASS_NAMES, shapes_for_classification
from backbones.engine import records
from backbones.models import get_model
from backbones.weights import WeightsMetadata, save_weights
from detection.data.annotations import DetectionDataset
from detection.train import main as train_main

torch.set_num_threads(1)  # before any fixture: the bits of a run depend on it

ROOT = Path(__file__).parents[2]

SMALL = [
    *("--config", str(ROOT / "configs/shapes/detect_resnet.yaml"), "--backbone.options", "{width: 4}"),
    *("--data.train_size", "16", "--data.test_size", "5", "--data.shorter_side", "64", "--data.longest_side", "96"),
    *("--rpn.channels", "16", "--roi.rois_per_image", "16", "--roi.pool_size", "7"),
    *("--train.steps", "6", "--train.checkpoint_every", "3", "--train.log_every", "2", "--train.workers", "0"),
    *("--schedule.warmup_steps", "2", "--device", "cpu"),
]


def write_backbone(path: Path, name: str = "resnet18", **options: Any) -> Path:
    """Writes a classifier with new weights, whose batch norm has seen some pictures; returns the file."""
    torch.manual_seed(0)
    network = get_model(name, len(CLASS_NAMES), **options)
    data = shapes_for_classification("train", 24, 48)
    pixels = np.stack([np.asarray(data.picture(i)) for i in range(len(data.labels))]).astype(np.float32)
    with torch.no_grad():
        for _ in range(30):  # running statistics follow with a momentum of 0.1
            network(torch.from_numpy((pixels - 127.5) / 64).permute(0, 3, 1, 2))
    metadata = WeightsMetadata("classification", name, options, CLASS_NAMES, [127.5] * 3, [64.0] * 3, 48)
    save_weights(path, network.state_dict(), metadata)
    return path


def train(output: Path, weights: Path, *arguments: str) -> dict[str, Any]:
    """Runs `train_detector` on the small data; returns its record."""
    train_main([*SMALL, "--backbone.weights", str(weights), "--output", str(output), *arguments])
    return record(output)


@contextmanager
def stopped_by_its_first_checkpoint() -> Iterator[None]:
    """A training inside is interrupted as by Ctrl-C once it has written a checkpoint; expects that of it."""
    save = records.save_checkpoint

    def interrupt_after_it(*given: Any) -> Path:
        save(*given)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "save_checkpoint", interrupt_after_it)
        with pytest.raises(SystemExit) as exit_info:
            yield
    assert exit_info.value.code == 130
    del exit_info  # its traceback holds the loader, whose processes would else end with the tests
    gc.collect()


def record(output: Path) -> dict[str, Any]:
    """What run.json says."""
    return json.loads((output / "run.json").read_text())


def refusal(capsys: pytest.CaptureFixture, main: Callable[[Sequence[str]], None], *arguments: str) -> str:
    """The one line with which a command refuses bad input."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    written = capsys.readouterr()
    assert exit_info.value.code == 2, written
    assert written.err.startswith("error: ")
    assert written.err.endswith("\n")
    assert len(written.err.splitlines()) == 1
    return written.err


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_voc(year: Path, split: str, dataset: DetectionDataset, names: Sequence[str] = CLASS_NAMES) -> None:
    """Adds pictures and objects to a VOC year folder, as a list of the name `split`; every fifth object is difficult.

    Args:
        names: what the classes are called there.
    """
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / folder).mkdir(parents=True, exist_ok=True)
    identities = [f"{split}_{index}" for index in range(len(dataset))]
    (year / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{each}\n" for each in identities))
    count = 0
    for index, identity in enumerate(identities):
        image, target = dataset.load_image(index), dataset.target(index)
        save_picture(year / "JPEGImages" / f"{identity}.jpg", image)
        objects = []
        for box, label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
            x1, y1, x2, y2 = box
            count += 1
            objects.append(
                f"<object><name>{escape(names[label - 1])}</name><difficult>{int(count % 5 == 0)}</difficult>"
                f"<bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin><xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox>"
                "</object>"
            )
        size = f"<size><width>{image.shape[2]}</width><height>{image.shape[1]}</height><depth>3</depth></size>"
        xml = f"<annotation>{size}{''.join(objects)}</annotation>"
        (year / "Annotations" / f"{identity}.xml").write_text(xml)


def write_coco(root: Path, split: str, dataset: DetectionDataset) -> Path:
    """Writes pictures and objects in the COCO layout; every fifth object is a crowd. Returns the annotation file.

    Category ids have gaps, as COCO's.
    """
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, objects = [], []
    for index in range(len(dataset)):
        image, target = dataset.load_image(index), dataset.target(index)
        save_picture(root / split / f"{index}.png", image)
        height, width = image.shape[1:]
        images.append({"id": 100 + 7 * index, "file_name": f"{index}.png", "height": height, "width": width})
        for box, label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
            x1, y1, x2, y2 = box
            entry = {"id": len(objects) + 1, "image_id": 100 + 7 * index, "category_id": 3 * label}
            entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": 0.8 * (x2 - x1) * (y2 - y1)}
            objects.append(entry | {"iscrowd": int(len(objects) % 5 == 4)})
    categories = [{"id": 3 * label, "name": name} for label, name in enumerate(CLASS_NAMES, 1)]
    file = root / "annotations" / f"instances_{split}.json"
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return file


def save_picture(path: Path, image: torch.Tensor, mode: str = "RGB") -> None:
    """Writes a picture (3, H, W) uint8 in a colour mode of PIL's."""
    Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).convert(mode).save(path, quality=95)
