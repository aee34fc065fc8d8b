"""The command `check_data`: lists what is wrong with a data set."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from backbones.check import check_folders, tell_findings
from backbones.cli import run_command
from backbones.data.glance import folders_below
from backbones.engine.outputs import check_writable
from backbones.errors import ConfigError, DataError
from detection.check_drawing import draw_sheets
from detection.data.checking.coco import usual_coco_splits
from detection.data.checking.scan import SplitScan
from detection.data.checking.splits import all_findings, check_detection_set
from detection.data.checking.table import describe_split, format_splits
from detection.data.checking.voc import usual_voc_splits
from detection.data.roots import coco_root_near, voc_root_near


def check_data(
    root: str,
    name: Literal["folder", "voc", "coco"] = "folder",
    splits: list[str] = ["auto"],  # noqa: B006 (jsonargparse reads the default)
    min_side: int = 32,
    min_box: float = 2,
    rare: int = 10,
    workers: int = 4,
    draw: int = 0,
    draw_output: str | None = None,
    output: str | None = None,
) -> None:
    """Lists what is wrong with a data set: class folders, or objects in the VOC or COCO layout; reads every picture.

    Finds a wrong layout, pictures that are damaged, mislabelled, there twice or in two splits (byte for byte), tiny, in
    CMYK and more; of detection sets also annotations that can't be read, pictures of another size, boxes without area,
    outside, tiny or there twice, and classes that are unknown or rare.
    Ends with exit code 0 where it finds nothing or warnings only, and 2 where it finds errors: what training or testing
    would stop at or be misled by. Examples: python tools/check_data.py --root imagenet --output report.json;
    python tools/check_data.py --name voc --root VOCdevkit --splits 07+12 VOC2007/test --draw 24 --draw_output drawn

    Args:
        root: the folder of the splits.
        name: folder (<root>/<split>/<class>/<picture>), voc or coco.
        splits: those to check; the first is the one that is trained on. auto is train val for class folders, trainval
            test for a VOC year, and for COCO the splits with annotation files.
        min_side: pictures with a side shorter than this are called tiny, in pixels.
        min_box: boxes with a side shorter than this are called tiny, in pixels.
        rare: classes with fewer objects than this in the first split are named.
        workers: processes that read pictures.
        draw: how many pictures of a detection set to draw with their boxes: those with errors and warnings first, then
            evenly spaced ones.
        draw_output: the folder for the drawn sheets (PNG).
        output: a JSON file for all findings (the first few of each kind are printed).
    """
    numbers = {"min_side": min_side, "min_box": min_box, "rare": rare, "workers": workers, "draw": draw}
    for option, number in numbers.items():
        if not number >= 0:
            raise ConfigError(f"{option} {number:g}: give 0 or more")
    if bool(draw) != (draw_output is not None):
        raise ConfigError("draw and draw_output belong together: say how many pictures, and the folder for them")
    if draw and name == "folder":
        raise ConfigError("draw: class folders have no boxes to draw; name voc or coco with --name")
    if not splits or len(set(splits)) < len(splits):
        raise ConfigError(f"splits {' '.join(splits)}: name one or more, each once")
    if not Path(root).is_dir():
        raise DataError(f"{root}: no such folder")
    if output:
        check_writable(Path(output))
    splits = _usual_splits(name, Path(root)) if splits == ["auto"] else splits
    if name == "folder":
        _refuse_detection_set(Path(root), splits)
    workers = min(workers, os.cpu_count() or 1)
    if name == "folder":
        check_folders(root, splits, min_side=min_side, workers=workers, output=output)
        return
    if draw_output is not None:
        check_writable(Path(draw_output) / "sheet_1.png")
    scans = check_detection_set(
        name, Path(root), splits, min_side=min_side, min_box=min_box, rare=rare, workers=workers
    )
    _tell(root, scans, draw, draw_output, output)


def _tell(root: str, scans: Sequence[SplitScan], draw: int, draw_output: str | None, output: str | None) -> None:
    """Prints what was found in a detection set, and writes and draws what is asked for."""
    summary = f"{root}\n{format_splits(scans)}"
    if draw_output is not None:
        summary += f"\n\n{draw_sheets(scans, draw, Path(draw_output))}"
    counts = {scan.name: describe_split(scan) for scan in scans}
    tell_findings(root, counts, all_findings(scans), summary=summary, output=output)


def _usual_splits(name: str, root: Path) -> list[str]:
    if name == "folder":
        return ["train", "val"]
    return usual_voc_splits(root) if name == "voc" else usual_coco_splits(root)


def _refuse_detection_set(root: Path, splits: Sequence[str]) -> None:
    """Says so where the name of the layout was forgotten. Raises ConfigError."""
    has_class_folders = any(True for split in splits for _ in folders_below(root / split, depth=1))
    if has_class_folders or any((inner / split).is_dir() for inner in folders_below(root, depth=2) for split in splits):
        return
    for name, near in (("voc", voc_root_near(root)), ("coco", coco_root_near(root))):
        if near == root:
            raise ConfigError(f"{root}: is of the {name.upper()} layout: give --name {name}")
        if near is not None:
            raise ConfigError(f"{root}: {near} is of the {name.upper()} layout: give --name {name} --root {near}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `check_data`."""
    run_command(check_data, argv=argv)


if __name__ == "__main__":
    main()
