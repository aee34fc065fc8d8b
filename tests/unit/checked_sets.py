"""Small detection sets for tests of `check_data.py`: what they hold, and how to change that."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from official_archives import picture
from voc_files import box, obj, xml

from detection.data.checking.scan import SplitScan
from detection.data.checking.splits import all_findings, check_detection_set

SIZE = "<size><width>40</width><height>40</height></size>"
CAT = obj("cat")


def write_voc(root: Path, year: str, lists: dict[str, list[str]], number: int = 0) -> None:
    """A year of pictures of noise, 40x40, with a cat and a difficult dog each."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / year / folder).mkdir(parents=True, exist_ok=True)
    for name, stems in lists.items():
        (root / year / f"ImageSets/Main/{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            number += 1
            (root / year / f"JPEGImages/{stem}.jpg").write_bytes(picture(number))
            dog = obj("dog", box(11, 11, 30, 40), "<difficult>1</difficult>")
            (root / year / f"Annotations/{stem}.xml").write_text(xml(obj("cat"), dog, size=SIZE))


def make_voc(root: Path) -> Path:
    """VOC2007/trainval and test, in which nothing is wrong."""
    write_voc(root, "VOC2007", {"trainval": ["a", "b"], "test": ["c"]})
    return root


def replace_xml(text: str) -> Callable[[Path], Any]:
    return lambda root: (root / "VOC2007/Annotations/a.xml").write_text(text)


def replace_picture(content: bytes) -> Callable[[Path], Any]:
    return lambda root: (root / "VOC2007/JPEGImages/a.jpg").write_bytes(content)


def coco_data(identities: list[int]) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 40} for i in identities],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": 18, "bbox": [4, 4 + k, 20, 9], "area": 90, "iscrowd": k}
            for i in identities
            for k in (0, 1)
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }


def write_coco(root: Path, split: str, data: Any, form: str = "instances") -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/{form}_{split}.json").write_text(json.dumps(data))


def make_coco(root: Path) -> Path:
    """train2017 and val2017, in which nothing is wrong."""
    for split, identities in (("train2017", [1, 2]), ("val2017", [3])):
        (root / split).mkdir()
        for i in identities:
            (root / split / f"{i}.jpg").write_bytes(picture(i))
        write_coco(root, split, coco_data(identities))
    return root


def change(*path: Any, value: Any = ...) -> Callable[[dict], None]:
    """Sets a value of the training annotations, or takes it away."""

    def apply(data: dict) -> None:
        place: Any = data
        for key in path[:-1]:
            place = place[key]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return apply


def check(name: Any, root: Path, *splits: str, rare: int = 0) -> list[SplitScan]:
    return check_detection_set(name, root, splits, min_side=32, min_box=2, rare=rare, workers=0)


def found(scans: list[SplitScan]) -> dict[str, list[str]]:
    """Kind -> what is said, each as "file: message"."""
    kinds: dict[str, list[str]] = {}
    for finding in all_findings(scans):
        kinds.setdefault(finding.kind.name, []).append(f"{Path(finding.file).name}: {finding.message}")
    return kinds
